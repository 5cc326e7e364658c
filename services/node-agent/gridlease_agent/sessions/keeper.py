"""Keeps one session: enters a sandbox, hands the ends of its streams over, and ends it in time.

Run as root, as ``python -I -S keeper.py``, with its order as JSON on standard input: folder (of the
lease), socket ([folder, name] to report to), kind (exec | forward); of an exec: argv, env, cwd,
tty, rows, columns; of a forward: port (0 = none) or path. Standard library only.

It speaks over a SOCK_SEQPACKET UNIX socket with the agent's core:
  -> "F" and the descriptors: the terminal, or stdin, stdout and stderr; or the connected socket
  -> "E" and JSON {reason, message}: it could not be done
  -> "X" and four bytes, big-endian: the program's exit code; the last word
  <- "S" and a byte: a signal for all processes of the session
When the socket ends, so does the session: SIGHUP to all its processes, SIGKILL after a grace. So a
core that dies leaves no session behind. Processes that made a session of their own (daemons,
terminal multiplexers) stay, within the lease.
"""

# One process a session: importing pathlib would cost each of them a third of its start.
# ruff: noqa: PTH110, PTH115, PTH123, PTH208

from __future__ import annotations

import array
import contextlib
import ctypes
import json
import os
import resource
import select
import shutil
import signal
import socket
import sys
import tempfile
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

GRACE_S = 2.0
START_S = 15.0
CONNECT_S = 10.0
RUN = "/run"
_CLONE_NEWNS, _CLONE_NEWUSER, _CLONE_NEWNET = 0x00020000, 0x10000000, 0x40000000
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


class Trouble(Exception):  # noqa: N818 - an expected failure; told to the core
    """The session could not begin. Arguments: reason, message."""


def _enter(pid: int, name: str, kind: int) -> None:
    """setns(2) into a process's namespace."""
    fd = os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _libc.setns(fd, kind) != 0:
            raise Trouble("SESSION_FAILED", f"setns {name}: {os.strerror(ctypes.get_errno())}")
    finally:
        os.close(fd)


def _read(path: str) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError), open(path, encoding="utf-8") as file:
        value = json.load(file)
        if isinstance(value, dict):
            return value
    return {}


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the name; empty if there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            return file.read().rpartition(")")[2].split()
    except OSError:
        return []


class Sandbox:
    """A running sandbox as its keeper's records tell of it.

    Raises:
        Trouble: TASK_NOT_RUNNING, SESSIONS_UNSUPPORTED.
    """

    def __init__(self, folder: str) -> None:
        self.spec = _read(f"{folder}/spec.json")
        started = _read(f"{folder}/started.json")
        keeper = _read(f"{folder}/shim.json")
        self.init = int(started.get("init_pid", 0))
        fields = _stat(self.init) if self.init else []
        same = len(fields) > 19 and int(fields[19]) == started.get("init_ticks")
        if not same or fields[0] in "ZX" or os.path.exists(f"{folder}/exit.json"):
            raise Trouble("TASK_NOT_RUNNING", "The task does not run now.")
        if self.spec.get("runtime") != "crun":
            raise Trouble("SESSIONS_UNSUPPORTED", "This node's sandboxes cannot be entered.")
        self.keeper = int(keeper.get("pid", 0))
        self.pids = os.readlink(f"/proc/{self.init}/ns/pid")

    def members(self, session: int) -> list[int]:
        """Its processes of one session, by the host's numbers."""
        found = []
        for name in os.listdir("/proc"):
            if not name.isdecimal():
                continue
            fields = _stat(int(name))
            if len(fields) < 4 or int(fields[3]) != session:
                continue
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/{name}/ns/pid") == self.pids:
                    found.append(int(name))
        return found


class Exec:
    """One program in a sandbox, until it or the core's patience ends."""

    def __init__(self, order: dict[str, Any], core: socket.socket) -> None:
        self._order = order
        self._core = core
        self._sandbox = Sandbox(order["folder"])
        self._folder = tempfile.mkdtemp(prefix="gridlease-session-", dir=RUN)
        self._pid = self._pidfd = -1
        self._session = -1  # of the program, by the host's number

    def run(self) -> None:
        try:
            self._start()
            code = self._keep()
            self._core.send(b"X" + code.to_bytes(4, "big"))
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _start(self) -> None:
        if self._order["tty"]:
            self._start_with_terminal()
            return
        pairs = [os.pipe() for _ in range(3)]
        owner = int(self._sandbox.spec["owner"])
        for fd in (fd for pair in pairs for fd in pair):
            os.fchown(fd, owner, owner)  # so that it may open /dev/stdout anew
        (in_read, in_write), (out_read, out_write), (err_read, err_write) = pairs
        self._launch((in_read, out_write, err_write), ())
        for fd in (in_read, out_write, err_write):
            os.close(fd)
        self._wait_for_pid()
        self._hand_over([in_write, out_read, err_read])

    def _start_with_terminal(self) -> None:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(f"{self._folder}/console")
        listener.listen(1)
        null = os.open("/dev/null", os.O_RDWR)
        self._launch((null, null, null), ("--tty", "--console-socket", f"{self._folder}/console"))
        os.close(null)
        poll = select.poll()
        poll.register(listener, select.POLLIN)
        poll.register(self._pidfd, select.POLLIN)
        ready = [fd for fd, _ in poll.poll(round(START_S * 1000))]
        if listener.fileno() not in ready:
            self._failed()
        console, _ = listener.accept()
        listener.close()
        console.settimeout(START_S)
        _, fds, _, _ = socket.recv_fds(console, 4096, 1)
        console.close()
        if not fds:
            self._failed()
        self._wait_for_pid()
        self._hand_over(fds)

    def _launch(self, fds: tuple[int, int, int], more: tuple[str, ...]) -> None:
        spec, order = self._sandbox.spec, self._order
        process = dict(spec["oci"]["process"])
        for limit in process["rlimits"]:
            hard = resource.getrlimit(getattr(resource, limit["type"]))[1]
            if hard != resource.RLIM_INFINITY:
                limit["soft"] = limit["hard"] = min(limit["hard"], hard)
        env = dict(row.split("=", 1) for row in process["env"]) | order["env"]
        process["env"] = [f"{key}={value}" for key, value in env.items()]
        process["cwd"] = order["cwd"] or process["cwd"]
        # Under a shell, so that what cannot be run ends as shells say it: 127 or 126.
        process["args"] = ["/bin/sh", "-c", 'exec "$@"', "sh", *order["argv"]]
        process["terminal"] = bool(order["tty"])
        if order["tty"]:
            process["consoleSize"] = {"height": order["rows"], "width": order["columns"]}
        plan = os.memfd_create("process", 0)
        os.write(plan, json.dumps(process).encode())
        words = [*spec["program"][:1], "--root", f"{spec['stage']}/crun"]
        words += ["--cgroup-manager=cgroupfs", "--log", f"{self._folder}/log", "exec"]
        words += ["--process", f"/proc/self/fd/{plan}", "--pid-file", f"{self._folder}/pid"]
        words += [*more, spec["lease_id"]]
        self._pid = os.fork()
        if self._pid == 0:
            self._become(words, fds)
        os.close(plan)
        self._pidfd = os.pidfd_open(self._pid)

    def _become(self, words: list[str], fds: tuple[int, int, int]) -> NoReturn:
        try:
            # crun's records lie in the keeper's own mounts.
            _enter(self._sandbox.keeper, "mnt", _CLONE_NEWNS)
            os.chdir("/")
            for target, source in enumerate(fds):
                os.dup2(source, target)
            for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGPIPE):
                signal.signal(number, signal.SIG_DFL)
            os.execve(words[0], words, {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})  # noqa: S606
        finally:
            os._exit(127)

    def _wait_for_pid(self) -> None:
        """Return once the program is in the sandbox."""
        until = time.monotonic() + START_S
        over = False
        while True:
            with contextlib.suppress(OSError, ValueError), open(f"{self._folder}/pid") as file:
                pid = int(file.read())
                fields = _stat(pid)
                self._session = int(fields[3]) if len(fields) > 3 else pid
                return
            if over or time.monotonic() > until:
                self._failed()
            over = bool(select.select([self._pidfd], [], [], 0.001)[0])

    def _failed(self) -> NoReturn:
        with contextlib.suppress(OSError):
            os.kill(self._pid, signal.SIGKILL)
        said = ""
        with contextlib.suppress(OSError), open(f"{self._folder}/log", errors="replace") as file:
            said = (file.read().strip().splitlines() or [""])[-1]
        if not os.path.exists(f"/proc/{self._sandbox.init}/ns/pid"):
            raise Trouble("TASK_NOT_RUNNING", "The task has ended.")
        raise Trouble("SESSION_FAILED", said or "The sandbox could not be entered.")

    def _hand_over(self, fds: list[int]) -> None:
        socket.send_fds(self._core, [b"F"], fds)
        for fd in fds:
            os.close(fd)

    def _keep(self) -> int:
        """Wait for the program or for the core's end; the exit code."""
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        poll.register(self._core, select.POLLIN)
        while True:
            ready = [fd for fd, _ in poll.poll()]
            if self._pidfd in ready:
                code = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
                return code if code >= 0 else 128 - code
            said = self._core.recv(16)
            if not said:
                self._hang_up()
                raise Trouble("SESSION_CUT", "The core has gone.")
            if said[:1] == b"S" and len(said) == 2:
                self._signal(said[1])

    def _signal(self, number: int) -> None:
        for pid in self._sandbox.members(self._session):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def _hang_up(self) -> None:
        """End every process of the session: asked first, then made to."""
        for number in (signal.SIGHUP, signal.SIGCONT):
            self._signal(number)
        until = time.monotonic() + GRACE_S
        while self._sandbox.members(self._session):
            if time.monotonic() > until:
                self._signal(signal.SIGKILL)
            if time.monotonic() > until + START_S:
                break
            select.select([], [], [], 0.02)


def _connected(order: dict[str, Any]) -> socket.socket:
    """A connection made inside the sandbox's network, as the task's own user."""
    sandbox = Sandbox(order["folder"])
    owner = sandbox.spec["oci"]["process"]["user"]
    mounts = os.open(f"/proc/{sandbox.init}/root", os.O_PATH | os.O_DIRECTORY)
    _enter(sandbox.init, "net", _CLONE_NEWNET)
    if order["path"]:
        _enter(sandbox.init, "mnt", _CLONE_NEWNS)
        os.fchdir(mounts)
        os.chroot(".")
        _enter_user(sandbox, owner)
    targets: list[tuple[int, Any]] = [(socket.AF_UNIX, order["path"])]
    if not order["path"]:
        port = order["port"]
        targets = [(socket.AF_INET, ("127.0.0.1", port)), (socket.AF_INET6, ("::1", port))]
    trouble = ""
    for family, address in targets:
        made = socket.socket(family, socket.SOCK_STREAM)
        made.settimeout(CONNECT_S)
        try:
            made.connect(address)
        except OSError as error:
            trouble = trouble or (error.strerror or str(error))
            made.close()
            continue
        made.settimeout(None)
        return made
    raise Trouble("FORWARD_REFUSED", f"Nothing listens there: {trouble}.")


def _enter_user(sandbox: Sandbox, owner: dict[str, int]) -> None:
    """No more rights than the task's user has, on the host and inside."""
    linux = sandbox.spec["oci"]["linux"]
    uid = linux["uidMappings"][0]["hostID"] + owner["uid"]
    gid = linux["gidMappings"][0]["hostID"] + owner["gid"]
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)


def main() -> int:
    """Do what standard input orders; the core hears how it went."""
    with open(0, encoding="utf-8") as source:
        order = json.load(source)
    os.set_inheritable(2, True)
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(null, 0)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    core = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    folder, name = order["socket"]
    at = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    core.connect(f"/proc/self/fd/{at}/{name}")  # a socket's path is short, a state folder's is not
    os.close(at)
    try:
        if order["kind"] == "exec":
            Exec(order, core).run()
        else:
            made = _connected(order)
            core.sendmsg([b"F"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, _ints(made.fileno()))])
    except Trouble as trouble:
        told = {"reason": trouble.args[0], "message": trouble.args[1]}
    except (OSError, KeyError, ValueError) as trouble:
        told = {"reason": "SESSION_FAILED", "message": repr(trouble)}
    else:
        return 0
    with contextlib.suppress(OSError):
        core.send(b"E" + json.dumps(told).encode())
    return 1


def _ints(*numbers: int) -> bytes:
    return array.array("i", numbers).tobytes()


if __name__ == "__main__":
    sys.exit(main())
