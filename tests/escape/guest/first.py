"""Process 1 of the virtual machine: makes it a node on cgroup v2, attacks it, tells, switches off.

Becomes ``/init`` of the archive; prints the outcomes on the console as one line after RESULT.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import socket
import struct
import sys
import traceback
from pathlib import Path

HOME = Path("/opt/gridlease")
BOTTOM = "/root-of-all"
_MS_BIND, _MS_MOVE = 4096, 8192
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 1
libc = ctypes.CDLL(None, use_errno=True)


def mount(source: str, target: str, kind: str, flags: int = 0, data: str = "") -> None:
    """mount(2)."""
    Path(target).mkdir(exist_ok=True)
    words = [text.encode() for text in (source, target, kind)]
    if libc.mount(*words, ctypes.c_ulong(flags), data.encode()):
        raise OSError(ctypes.get_errno(), f"mount {target}")


def settle() -> None:
    """A root that can be left (the kernel's first cannot), and the usual file systems."""
    mount("/", BOTTOM, "", _MS_BIND)
    os.chdir(BOTTOM)
    if libc.mount(b".", b"/", None, ctypes.c_ulong(_MS_MOVE), None):
        raise OSError(ctypes.get_errno(), "move the root")
    os.chroot(".")
    mount("proc", "/proc", "proc")
    mount("sysfs", "/sys", "sysfs")
    mount("devtmpfs", "/dev", "devtmpfs")
    mount("devpts", "/dev/pts", "devpts", data="newinstance,ptmxmode=0666")
    mount("tmpfs", "/dev/shm", "tmpfs")
    mount("tmpfs", "/run", "tmpfs")
    mount("cgroup2", "/sys/fs/cgroup", "cgroup2")
    Path("/sys/fs/cgroup/cgroup.subtree_control").write_text("+cpu +memory +pids +io +cpuset")
    # The machine's numbers must not be those of a sandbox's own processes by chance.
    Path("/proc/sys/kernel/ns_last_pid").write_text("20000")
    # Every crash is handed to a program of the machine, as systemd's would be.
    handler = "|/usr/bin/cp /proc/self/fd/0 /root/dump-%p"
    Path("/proc/sys/kernel/core_pattern").write_text(handler)
    Path("/etc/shadow").write_text("root:*:1::::::\n")
    Path("/etc/machine-id").write_text("0" * 32)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        fcntl.ioctl(asked, _SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", _IFF_UP))


def dumps() -> list[str]:
    """What the machine's crash handler was handed."""
    return sorted(path.name for path in Path("/root").glob("dump-*"))


def crash() -> None:
    """A process of the machine itself, under no limit of ours, ends badly."""
    pid = os.fork()
    if pid == 0:
        os.abort()
    os.waitpid(pid, 0)


def attack() -> dict[str, object]:
    """Every probe's outcome, and how this node limits."""
    for part in ("", "services/node-agent", "libs/kernel", "libs/testkit"):
        sys.path.append(str(HOME / part))
    from gridlease_agent.isolate import cgroups
    from gridlease_agent.runtimes.choose import Runtime

    from tests.escape.world import trapped, world

    folder = Path("/var/lib/gridlease")
    folder.mkdir(mode=0o700)
    with world(folder, Runtime("crun", "/usr/bin/crun", root=True), 200.0) as place:
        data = trapped(folder / "data", place.sandboxes.folder(".."))
        found = place.attack([data])
    of_tasks = dumps()
    crash()
    return {
        "dumps": of_tasks,
        "dumps_at_all": len(dumps()),
        "cgroups": cgroups.mode().value,
        "kernel": os.uname().release,
        "left": [str(path) for path in Path("/sys/fs/cgroup/gridlease").glob("*.ls-*")],
        "found": [[probe.name, outcome] for probe, outcome in found],
        "facts": place.facts,
    }


def main() -> None:
    """The machine's whole life."""
    os.environ |= {"PATH": "/usr/sbin:/usr/bin", "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        settle()
        print("RESULT " + json.dumps(attack()), flush=True)
    except BaseException:  # noqa: BLE001 - nobody else is there to tell it
        traceback.print_exc()
        sys.stderr.flush()
        log = Path("/var/lib/gridlease/state/leases")
        for path in [*log.glob("*/log"), *log.glob("*/*.log")]:
            print(path, path.read_text(errors="replace")[-2000:], flush=True)
    os.sync()
    libc.reboot(0x4321FEDC)


if __name__ == "__main__":
    main()
