"""Runs inside a sandbox: every probe of ``probes.json`` in a child of its own, one JSON line each.

Standard library only, nothing of the project: it is the attacker. An outcome is ``ok`` (the
attempt succeeded), the name of an errno, ``killed SIGNAL``, or what a look around has found.
"""

# The attacker's way of opening files is the plain one.
# ruff: noqa: BLE001, PERF401, PTH116, PTH123, PTH208

from __future__ import annotations

import os

AT_START = os.listdir("/proc/self/fd")  # before anything is opened

import ctypes  # noqa: E402
import errno  # noqa: E402
import fcntl  # noqa: E402, F401 - for the table's expressions
import json  # noqa: E402
import mmap  # noqa: E402
import resource  # noqa: E402, F401
import select  # noqa: E402
import signal  # noqa: E402
import socket  # noqa: E402
import stat  # noqa: E402
import sys  # noqa: E402

FORKS = {"clone", "fork", "vfork"}
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long


def _argument(value):
    if isinstance(value, int):
        return ctypes.c_long(value - (1 << 64) if value >= 1 << 63 else value)
    if value.startswith("#"):  # so many zero bytes
        return ctypes.create_string_buffer(int(value[1:]))
    if value.startswith("0x"):
        return ctypes.create_string_buffer(bytes.fromhex(value[2:]))
    return ctypes.c_char_p(value.encode())


def call(name, number, *arguments):
    """A system call by number."""
    answer = libc.syscall(ctypes.c_long(number), *map(_argument, arguments))
    if answer == -1:
        raise OSError(ctypes.get_errno(), name)
    if answer == 0 and name in FORKS:
        os._exit(0)
    return "ok"


def opened(path, mode="r"):
    flags = {"r": os.O_RDONLY, "w": os.O_WRONLY, "rw": os.O_RDWR, "c": os.O_WRONLY | os.O_CREAT}
    os.close(os.open(path, flags[mode] | os.O_NONBLOCK))
    return "ok"


def read(path):
    """Whether it holds anything but zeros."""
    with open(path, "rb") as file:
        return "ok" if file.read(1 << 16).strip(b"\0") else "empty"


def write(path, text):
    fd = os.open(path, os.O_WRONLY)
    os.write(fd, text.encode())
    return "ok"


def device(path, mode="rw"):
    """A name alone is none: in a writable /dev any name can become a plain file."""
    kind = os.stat(path).st_mode
    if not (stat.S_ISCHR(kind) or stat.S_ISBLK(kind)):
        return "plain"
    return opened(path, mode)


def mknod(folder, kind, major, minor):
    """Make a device's node and open it."""
    path = f"{folder}/node-{kind}-{major}-{minor}"
    bits = stat.S_IFBLK if kind == "b" else stat.S_IFCHR
    os.mknod(path, bits | 0o600, os.makedev(major, minor))
    return device(path, "r")


def sock(family, kind, protocol=0):
    socket.socket(family, kind, protocol).close()
    return "ok"


def connect(family, host, port=None):
    if family == "unix":
        with socket.socket(socket.AF_UNIX) as local:
            local.connect("\0" + host[1:] if host.startswith("@") else host)
        return "ok"
    kind = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(kind, socket.SOCK_STREAM) as stream:
        stream.settimeout(2)
        stream.connect((host, port))
    return "ok"


def holds(path, needle):
    """Whether a text occurs in a file."""
    with open(path, "rb") as file:
        return "found" if needle.encode() in file.read() else "absent"


def names(path):
    return " ".join(sorted(os.listdir(path))) or "empty"


def code(hexadecimal):
    """Machine code, jumped into."""
    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(bytes.fromhex(hexadecimal))
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    answer = ctypes.CFUNCTYPE(ctypes.c_int)(address)()
    if -4095 <= answer < 0:
        raise OSError(-answer, "code")
    return "ok"


def status(field):
    """A line of /proc/self/status."""
    with open("/proc/self/status") as file:
        return next(line.split()[1] for line in file if line.startswith(field + ":"))


def py(source):
    """An expression; what it raises is its answer too."""
    answer = eval(source, globals())
    return "ok" if answer is None else str(answer)


def forks(limit):
    """Children until the kernel refuses, all waiting: ``contained`` if it does before the limit."""
    end, _keep = os.pipe()
    children = []
    try:
        while len(children) < limit:
            pid = os.fork()
            if pid == 0:
                os.read(end, 1)
                os._exit(0)
            children.append(pid)
        return "ok"
    except OSError as trouble:
        return "contained" if trouble.errno == errno.EAGAIN else trouble.strerror
    finally:
        for pid in children:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def hoard(size_mib):
    """Memory, written to."""
    kept = []
    try:
        for _ in range(size_mib // 8):
            kept.append(b"\1" * (8 << 20))
    except MemoryError:
        return "contained"
    return "ok"


VERBS = {
    verb.__name__: verb
    for verb in (
        call, read, write, device, mknod, connect, holds, names, code, status, py, forks, hoard
    )
} | {"open": opened, "socket": sock}  # fmt: skip


def _attempt(words):
    try:
        return VERBS[words[0]](*words[1:])
    except OSError as trouble:
        if isinstance(trouble, TimeoutError):
            return "timeout"
        return errno.errorcode.get(trouble.errno, str(trouble))
    except BaseException as trouble:
        return f"raised {type(trouble).__name__}: {trouble}"


def outcome(words, patience_s):
    """What became of one probe, in a child: one that is killed ends nobody else."""
    end, mine = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(end)
        os.write(mine, _attempt(words).encode("utf-8", "replace")[:4000])
        os._exit(0)
    os.close(mine)
    pidfd = os.pidfd_open(pid)
    late = not select.select([pidfd], [], [], patience_s)[0]
    if late:
        os.kill(pid, signal.SIGKILL)
    ended = os.waitpid(pid, 0)[1]
    os.close(pidfd)
    said = os.read(end, 5000).decode() if select.select([end], [], [], 0)[0] else ""
    os.close(end)
    if late:
        return "hangs"
    if said:
        return said
    if os.WIFSIGNALED(ended):
        return f"killed {signal.Signals(os.WTERMSIG(ended)).name}"
    return "silent"


def main():
    with open("probes.json", encoding="utf-8") as file:
        plan = json.load(file)
    for name, words in plan["probes"]:
        line = json.dumps([name, outcome(words, plan["patience_s"])]) + "\n"
        os.write(1, line.encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
