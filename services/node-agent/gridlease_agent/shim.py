"""Keeps one task: starts its sandbox once, holds its deadline, writes down how it ended.

Run as ``python -I -S shim.py DIR``. Standard library only, nothing of the agent imported: the
shim outlives the agent, and a static one in C can take its place behind the same contract.

DIR is ``…/leases/<lease_id>/``. JSON files are replaced atomically (write, fsync, rename, fsync).

Written by the agent before the shim starts
  spec.json      immutable. version 1; lease_id; runtime (crun | bwrap); program (argv; for crun
                 its path alone); options (bwrap's, sent through a pipe); stage (a folder: when
                 ``private``, a tmpfs mounted there in the shim's own mount namespace, so that
                 the mapped user can reach it wherever DIR lies); binds [[source, path under
                 stage, read-only]]; links [[path, target]]; files [[path, text]]; oci (the whole
                 config.json, or null); seccomp (base64, bwrap); cgroup ("" if none); owner (uid
                 of work/, -1 = as it is); run_as (uid to drop to before bwrap, -1 = stay);
                 rlimits; disk_bytes; disk_inodes; log_limit_bytes; link ("NAMESPACE'S PATH/NAME",
                 taken down before the sandbox is killed); core_tag (schedule it apart).
  deadline.json  {boot_id, boottime_ns, raw_ns, grace_ms}: replaced at will. The task is over at
                 the earlier of the two clocks. Another boot's file is void: over at once.
  work/ notice/  folders shown in the sandbox at /work and (read-only) /run/gridlease.
  control        FIFO. Any byte makes the shim read deadline.json and stop.json now; a lost byte
                 costs one tick (0.5 s).
Written by the agent later
  stop.json      {boot_id, boottime_ns, reason, code, message}: SIGTERM and the notice now, the
                 kill at boottime_ns; the reason (STOPPED if none) is recorded, the code (the
                 reason if none) and the message are told to the task.
Written by the shim
  shim.json      {boot_id, pid, start_ticks}. Created once: a folder with one never starts again.
  started.json   {boot_id, boottime_ns, raw_ns, wall_ns, init_pid}: durable before the task is
                 released to run.
  exit.json      {exit_code (128 + n for signal n), signal, started, boot_id, ended_boottime_ns,
                 ended_wall_ns, oom, oom_kills, reason, message, cpu_ns, max_memory_bytes, clean,
                 log_truncated}: durable after the sandbox and its cgroup are gone (clean = so).
                 reason: EXITED | OOM_KILLED | DEADLINE | STOPPED | DISK_QUOTA | START_FAILED |
                 SHIM_LOST (written by the guard when the shim died before the task).
  log            stdout and stderr of the task, raw, up to log_limit_bytes and one last line.
  shim.log       the shim's own words; runtime.log: the runtime's.
  notice/notice.json  {reason, message, notice_ms, deadline (ISO 8601, by this host's clock),
                 ends_boottime_ns}: what the task is told with SIGTERM.

SIGTERM goes to the sandbox's process 1 and to its direct children. If the shim dies, its guard (a
forked child at the end of a pipe) kills the sandbox; if the guard dies, the shim forks another.
"""

# One process a task: importing pathlib would cost each of them a third of its start.
# ruff: noqa: PTH100, PTH101, PTH103, PTH105, PTH106, PTH108, PTH110, PTH112, PTH120, PTH123
# ruff: noqa: PTH208, PTH211

from __future__ import annotations

import binascii
import contextlib
import ctypes
import fcntl
import json
import os
import resource
import select
import signal
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

TICK_MS = 500
QUOTA_PAUSE_NS, QUOTA_LEAST_NS = 500_000_000, 20_000_000
QUOTA_FASTEST = 4  # bytes in a nanosecond: faster than any disk or page cache
KILL_PATIENCE_S = 30.0
BWRAP_FDS = (200, 201, 202, 203)  # seccomp, info, block, args: see runtimes/bwrap.py
CGROUPS = "/sys/fs/cgroup"
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_CLONE_NEWNS, _CLONE_NEWNET = 0x00020000, 0x40000000
_PR_SCHED_CORE, _CREATE, _THREAD_GROUP = 62, 1, 1
_AF_INET, _SOCK_DGRAM = 2, 2
_SIOCSIFFLAGS = 0x8914
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_REMOUNT = 1, 2, 4, 32
_MS_BIND, _MS_REC, _MS_SLAVE = 4096, 16384, 1 << 19
_MNT_DETACH = 2
_libc = ctypes.CDLL(None, use_errno=True)


class Trouble(Exception):  # noqa: N818 - an expected failure: its text becomes exit.json's message
    """The sandbox could not be started."""


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise Trouble(f"{what}: {os.strerror(number)}")


def mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    """mount(2)."""
    arguments = (source.encode(), target.encode(), kind.encode(), flags, data.encode())
    _check(_libc.mount(*arguments[:3], ctypes.c_ulong(flags), arguments[4]), f"mount {target}")


def write_json(path: str, value: dict[str, Any]) -> None:
    """Durably and atomically: the file is whole or absent, also after a power cut."""
    text = json.dumps(value)  # dump() would not use the encoder in C: ten times as long
    with open(path + ".new", "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(path + ".new", path)
    folder = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def read_json(path: str) -> dict[str, Any] | None:
    """The object in a file, or None where there is none yet."""
    try:
        with open(path, encoding="utf-8") as file:
            value = json.load(file)
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def read_text(path: str) -> str:
    """A small file's text, "" where there is none."""
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def boottime_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def raw_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)


def boot_id() -> str:
    return read_text("/proc/sys/kernel/random/boot_id").strip()


def start_ticks(pid: int) -> int:
    """When a process began, in clock ticks since boot: with its pid, its identity. 0 if gone."""
    fields = read_text(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return int(fields[19]) if len(fields) > 19 else 0


def state_letter(pid: int) -> str:
    """The process's state as ps shows it (R, S, D, Z …), X if there is none."""
    return (read_text(f"/proc/{pid}/stat").rpartition(")")[2].split() or ["X"])[0]


def _in_child(uid: int, fds: dict[int, int], limits: dict[str, int]) -> None:
    """Between fork and exec: die with the shim, take the given descriptors, limits and user."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    for target, source in fds.items():
        os.dup2(source, target, inheritable=True)
    for name, limit in limits.items():
        kind = getattr(resource, f"RLIMIT_{name}")
        hard = resource.getrlimit(kind)[1]
        value = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(kind, (value, value))
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    if uid >= 0:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
        # Changing the user cleared it.
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def spawn(
    argv: list[str],
    fds: dict[int, int],
    *,
    uid: int = -1,
    limits: dict[str, int] | None = None,
) -> int:
    """Fork and exec with a plain environment; the child's pid."""
    pid = os.fork()
    if pid:
        return pid
    try:
        _in_child(uid, fds, limits or {})
        os.execve(argv[0], argv, {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})  # noqa: S606
    except BaseException as trouble:  # noqa: BLE001 - a forked child must end here, whatever it is
        os.write(2, f"cannot run {argv[0]}: {trouble}\n".encode())
    os._exit(127)


def wait_code(status: int) -> int:
    """A wait status as a shell's exit code: 128 + n for signal n."""
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


class Cgroup:
    """The sandbox's cgroup in whichever hierarchies there are; all of it may be absent."""

    def __init__(self, name: str) -> None:
        self.v2 = os.path.exists(f"{CGROUPS}/cgroup.controllers")
        kinds = [""] if self.v2 else ["freezer", "pids", "memory", "cpuacct", "cpu"]
        if not self.v2:
            kinds += [
                kind for kind in sorted(os.listdir(CGROUPS)) if kind not in (*kinds, "unified")
            ]
        self._folders = {kind: f"{CGROUPS}/{kind}/{name}" for kind in kinds} if name else {}

    def _file(self, kind: str, name: str) -> str:
        folder = self._folders.get("" if self.v2 else kind, "/nonexistent")
        return f"{folder}/{name}"

    def pids(self) -> list[int]:
        return [int(pid) for pid in read_text(self._file("pids", "cgroup.procs")).split()]

    def kill(self) -> None:
        """Every process at once: none can fork its way out of a frozen or killed cgroup."""
        if self.v2:
            self._write(self._file("", "cgroup.kill"), "1")
            return
        self._write(self._file("freezer", "freezer.state"), "FROZEN")
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._write(self._file("freezer", "freezer.state"), "THAWED")

    @staticmethod
    def _write(path: str, text: str) -> None:
        with contextlib.suppress(OSError), open(path, "w", encoding="ascii") as file:
            file.write(text)

    def oom_kills(self) -> int:
        """How many processes the kernel killed for memory here, children included."""
        name = "memory.events" if self.v2 else "memory.oom_control"
        rows = [line.split() for line in read_text(self._file("memory", name)).splitlines()]
        return sum(int(row[1]) for row in rows if len(row) == 2 and row[0] == "oom_kill")

    def cpu_ns(self) -> int:
        if not self.v2:
            return int(read_text(self._file("cpuacct", "cpuacct.usage")) or 0)
        rows = [line.split() for line in read_text(self._file("", "cpu.stat")).splitlines()]
        return sum(int(row[1]) * 1000 for row in rows if row[:1] == ["usage_usec"])

    def max_memory_bytes(self) -> int:
        name = "memory.peak" if self.v2 else "memory.max_usage_in_bytes"
        return int(read_text(self._file("memory", name)) or 0)

    def remove(self) -> bool:
        """Remove the folders; True once none is left."""
        for folder in self._folders.values():
            with contextlib.suppress(OSError):
                os.rmdir(folder)
        return not self.left()

    def left(self) -> list[str]:
        """The folders that are still there."""
        return [folder for folder in self._folders.values() if os.path.isdir(folder)]


def walk_usage(folder: str) -> Iterator[tuple[int, int] | None]:
    """Bytes and files on disk under ``folder``: None while it counts, the sums at last."""
    total = files = 0
    seen: set[int] = set()
    stack = [folder]
    while stack:
        path = stack.pop()
        try:
            # The task may put a link where a folder was: never follow it out of here.
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:
            continue
        try:
            for entry in os.scandir(fd):
                files += 1
                with contextlib.suppress(OSError):
                    facts = entry.stat(follow_symlinks=False)
                    total += 0 if facts.st_ino in seen else facts.st_blocks * 512
                    if entry.is_dir(follow_symlinks=False):
                        stack.append(f"{path}/{entry.name}")
                    elif facts.st_nlink > 1:
                        seen.add(facts.st_ino)
                if files % 256 == 0:
                    yield None
        finally:
            os.close(fd)
    yield total, files


class Log:
    """The task's output: a pipe on one side, a capped file on the other."""

    def __init__(self, path: str, limit: int) -> None:
        self.read_fd, self.write_fd = os.pipe()
        os.set_blocking(self.read_fd, False)
        with contextlib.suppress(OSError):
            fcntl.fcntl(self.read_fd, fcntl.F_SETPIPE_SZ, 1 << 18)
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._left = limit
        self._limit = limit
        self.truncated = False

    def drain(self, chunks: int = 64) -> bool:
        """Take what is there, at most ``chunks`` reads; False at the end of the stream."""
        for _ in range(chunks):
            try:
                data = os.read(self.read_fd, 1 << 16)
            except BlockingIOError:
                return True
            if not data:
                return False
            self._keep(data)
        return True

    def _keep(self, data: bytes) -> None:
        kept, self._left = data[: self._left], max(0, self._left - len(data))
        try:
            os.write(self._file, kept)
        except OSError:
            self.truncated = True  # the host's disk is full: the task must not hang on it
        if len(kept) < len(data) and not self.truncated:
            self.truncated = True
            note = f"\n[gridlease] the log is cut here: its limit is {self._limit} bytes\n"
            with contextlib.suppress(OSError):
                os.write(self._file, note.encode())


class Shim:
    """One task from its folder to its exit record."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.spec = read_json(f"{folder}/spec.json") or {}
        self.boot_id = boot_id()
        self.cgroup = Cgroup(self.spec.get("cgroup", ""))
        self.log = Log(f"{folder}/log", int(self.spec.get("log_limit_bytes", 1 << 20)))
        self.control = os.open(f"{folder}/control", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self.root = f"{self.spec['stage']}/crun"
        self.child = 0  # the process to wait for: crun's container, or bubblewrap itself
        self.init = 0  # the sandbox's process 1, by the host's number
        self.init_ticks = 0  # and when it began: a pid alone may be another's by now
        self.release_fd = -1
        self.guard_pid = self.guard_pipe = -1
        self.notified = self.killed = self.cut = False
        self.told: set[int] = set()
        self.reason = ""
        self.message = ""
        self.started = False
        self._scan: Iterator[tuple[int, int] | None] | None = None
        self._scan_after_ns = 0
        self._used = 0  # at the last count

    # -- preparing ---------------------------------------------------------------------------

    def isolate(self) -> None:
        """A mount namespace of its own, and under ``stage`` all that the sandbox will show."""
        stage = self.spec["stage"]
        if self.spec["private"]:
            _check(_libc.unshare(_CLONE_NEWNS), "unshare the mount namespace")
            mount("none", "/", "", _MS_REC | _MS_SLAVE)
            if os.path.exists(f"{CGROUPS}/unified") and not self.cgroup.v2:
                # crun 1.8.1 refuses hybrid cgroups as soon as the v2 tree holds a controller.
                # It still makes folders there: the tmpfs takes them along when all is over.
                _libc.umount2(f"{CGROUPS}/unified".encode(), _MNT_DETACH)
                mount("tmpfs", f"{CGROUPS}/unified", "tmpfs", _MS_NOSUID, "size=1m")
            os.makedirs(stage, 0o755, exist_ok=True)
            mount("tmpfs", stage, "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=755,size=16m")
        os.makedirs(stage, 0o755, exist_ok=True)
        for path, target in self.spec["links"]:
            os.makedirs(os.path.dirname(f"{stage}/{path}"), 0o755, exist_ok=True)
            os.symlink(target, f"{stage}/{path}")
        for path, text in self.spec["files"]:
            os.makedirs(os.path.dirname(f"{stage}/{path}"), 0o755, exist_ok=True)
            with open(f"{stage}/{path}", "w", encoding="utf-8") as file:
                file.write(text)
        for row in (self.spec["oci"] or {"mounts": []})["mounts"]:
            # The mapped root may not make the mount points: they are here beforehand.
            source = row["source"]
            bound = {f"{stage}/{path}": origin for origin, path, _ro in self.spec["binds"]}
            _place(bound.get(source, "/"), f"{stage}/bundle/rootfs{row['destination']}")
        for source, path, read_only in self.spec["binds"]:
            self._bind(source, f"{stage}/{path}", read_only=read_only)
        if self.spec["owner"] >= 0:
            os.chown(f"{self.folder}/work", self.spec["owner"], self.spec["owner"])

    @staticmethod
    def _bind(source: str, target: str, *, read_only: bool) -> None:
        _place(source, target)
        mount(source, target, "", _MS_BIND | _MS_REC)
        # Here, not only in crun's options: its bind of a bind that is already there keeps these.
        flags = _MS_BIND | _MS_REMOUNT | _MS_NOSUID | _MS_NODEV
        mount("none", target, "", flags | (_MS_RDONLY if read_only else 0))

    def guard(self) -> None:
        """Fork the guard: it blocks on a pipe and acts only if this process dies."""
        read_fd, write_fd = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                os.close(write_fd)
                self._stand_guard(read_fd)
            finally:
                os._exit(0)
        os.close(read_fd)
        if self.guard_pipe >= 0:
            os.close(self.guard_pipe)
        self.guard_pid, self.guard_pipe = pid, write_fd

    def _stand_guard(self, read_fd: int) -> None:
        os.setsid()
        for fd in (self.log.read_fd, self.log.write_fd, self.control, self.guard_pipe):
            if fd >= 0:
                os.close(fd)
        if self.release_fd >= 0:
            os.close(self.release_fd)
        if os.read(read_fd, 1):
            return  # the shim ended in good order
        ended = boottime_ns()
        started = read_json(f"{self.folder}/started.json") or {}
        self.init = started.get("init_pid", 0)
        self.init_ticks = started.get("init_ticks", 0)
        clean = self._clear_away()
        if not os.path.exists(f"{self.folder}/exit.json"):
            self.reason, self.message = "SHIM_LOST", "The task's keeper died; the task with it."
            self.started = bool(started)
            self._write_exit(137, 9, ended, clean=clean, cpu_ns=0)

    def _clear_away(self) -> bool:
        """Kill and remove whatever is left of the sandbox; True when nothing is."""
        until = time.monotonic() + KILL_PATIENCE_S
        deleted = self.spec["runtime"] != "crun"
        while True:
            self._kill_everything()
            if not deleted:
                with contextlib.suppress(Trouble):
                    self.crun("delete", "--force", self.spec["lease_id"])
                    deleted = True
            _reap_all()  # a zombie holds its cgroup
            if self.cgroup.remove() and not self._init_lives():
                return True
            if time.monotonic() > until:
                return False
            time.sleep(0.01)

    def _init_lives(self) -> bool:
        if not self.init or start_ticks(self.init) != self.init_ticks:
            return False
        return state_letter(self.init) not in "ZX"

    # -- the runtime -------------------------------------------------------------------------

    def crun(self, *words: str, fds: dict[int, int] | None = None) -> None:
        """Run one crun command to its end.

        Raises:
            Trouble: with crun's own words.
        """
        log = f"{self.folder}/runtime.log"
        argv = [*self.spec["program"], "--root", self.root, "--cgroup-manager=cgroupfs"]
        pid = spawn([*argv, "--log", log, *words], fds or {})
        pidfd = os.pidfd_open(pid)
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        if not poll.poll(round(KILL_PATIENCE_S * 1000)):
            os.kill(pid, signal.SIGKILL)  # stuck: nothing has been released yet, or all is killed
        os.close(pidfd)
        status = os.waitpid(pid, 0)[1]
        if status:
            said = read_text(log).strip().splitlines()
            raise Trouble(said[-1] if said else f"crun {words[0]} failed ({wait_code(status)})")

    def create(self) -> None:
        """Make the sandbox, with its process 1 waiting to be released."""
        output = {1: self.log.write_fd, 2: self.log.write_fd}
        if self.spec["runtime"] == "crun":
            bundle = f"{self.spec['stage']}/bundle"
            config = self.spec["oci"]
            for limit in config["process"]["rlimits"]:
                hard = resource.getrlimit(getattr(resource, limit["type"]))[1]
                if hard != resource.RLIM_INFINITY:
                    limit["soft"] = limit["hard"] = min(limit["hard"], hard)
            with open(f"{bundle}/config.json", "w", encoding="utf-8") as file:
                json.dump(config, file)
            pid_file = f"{self.spec['stage']}/pid"
            words = ("create", "--bundle", bundle, "--pid-file", pid_file, self.spec["lease_id"])
            self.crun(*words, fds=output)
            self.child = self.init = int(read_text(pid_file))
        else:
            self._create_bwrap(output)
        self.init_ticks = start_ticks(self.init)
        os.close(self.log.write_fd)
        self.log.write_fd = -1

    def _create_bwrap(self, output: dict[int, int]) -> None:
        seccomp = _filled(binascii.a2b_base64(self.spec["seccomp"]))
        options = _filled("".join(word + "\0" for word in self.spec["options"]).encode())
        info_read, info_write = os.pipe()
        block_read, self.release_fd = os.pipe()
        fds = output | dict(zip(BWRAP_FDS, (seccomp, info_write, block_read, options), strict=True))
        uid = self.spec["run_as"]
        limits = dict(self.spec["rlimits"])
        tasks = limits.pop("NPROC")
        if uid >= 0:
            limits["NPROC"] = tasks  # this uid is the lease's alone
        self.child = spawn(self.spec["program"], fds, uid=uid, limits=limits)
        for fd in (seccomp, info_write, block_read, options):
            os.close(fd)
        self.init = int(_child_pid(info_read))
        if uid < 0:
            # Only inside: there the count begins anew (Linux 5.14), outside the user has others.
            with contextlib.suppress(OSError, ValueError):
                resource.prlimit(self.init, resource.RLIMIT_NPROC, (tasks, tasks))

    def release(self) -> None:
        """Let the task run. ``started.json`` is on disk by now."""
        if self.spec["runtime"] == "crun":
            self.crun("start", self.spec["lease_id"])
        else:
            os.write(self.release_fd, b"1")
            os.close(self.release_fd)
            self.release_fd = -1

    # -- the deadline ------------------------------------------------------------------------

    def remaining_ns(self) -> tuple[int, int, str]:
        """What is left until the kill, the grace before it, and what decides: why it ends."""
        deadline = read_json(f"{self.folder}/deadline.json")
        if deadline is None or deadline.get("boot_id") != self.boot_id:
            return 0, 0, "DEADLINE"
        left = min(deadline["boottime_ns"] - boottime_ns(), deadline["raw_ns"] - raw_ns())
        stop = read_json(f"{self.folder}/stop.json")
        if stop is None:
            return left, deadline["grace_ms"] * 1_000_000, "DEADLINE"
        if stop.get("boot_id") == self.boot_id:
            left = min(left, stop["boottime_ns"] - boottime_ns())
        return left, left + 1, str(stop.get("reason") or "STOPPED")

    def enforce(self) -> int:
        """Warn, or kill, if it is time to; nanoseconds until there is something to do."""
        left, grace, why = self.remaining_ns()
        if left <= 0:
            self.kill(why)
            return 0
        if left <= grace:
            self._notify(why, left)
        elif left > grace and self.notified:
            self.notified, self.reason = False, ""  # renewed after the warning
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{self.folder}/notice/notice.json")
        return min(left, TICK_MS * 200_000) if self.notified else left - grace

    def _notify(self, why: str, left: int) -> None:
        if not self.notified:
            self.notified, self.reason, self.told = True, why, set()
            path = f"{self.folder}/notice/notice.json"
            with contextlib.suppress(OSError):  # a full disk must not keep the signal back
                write_json(path, self._notice(why, left))
                os.chmod(path, 0o644)
        # Once each, also to one that had not begun yet when the first were told.
        for pid in set(self._leaders()) - self.told:
            self.told.add(pid)
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGTERM)

    def _notice(self, why: str, left: int) -> dict[str, Any]:
        stop = read_json(f"{self.folder}/stop.json") or {}
        at_s, ns = divmod(time.time_ns() + left, 1_000_000_000)
        day = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at_s))
        return {
            "reason": stop.get("code") or why,
            "message": stop.get("message", ""),
            "notice_ms": left // 1_000_000,
            "deadline": f"{day}.{ns // 1_000_000:03}Z",
            "ends_boottime_ns": boottime_ns() + left,
        }

    def _leaders(self) -> list[int]:
        """The sandbox's process 1 and its direct children."""
        found = read_text(f"/proc/{self.init}/task/{self.init}/children").split()
        return [self.init, *(int(pid) for pid in found)]

    def kill(self, why: str) -> None:
        """End every process of the sandbox now; the first reason stays."""
        if not self.killed:
            self.killed, self.reason = True, why
        self._kill_everything()

    def _cut(self) -> None:
        """Take the task's link down: what it still sends would be nobody's."""
        path, _, name = str(self.spec.get("link") or "").rpartition("/")
        if self.cut or not path:
            return
        self.cut = True
        with contextlib.suppress(OSError):
            own, there = (os.open(each, os.O_RDONLY) for each in ("/proc/self/ns/net", path))
            if _libc.setns(there, _CLONE_NEWNET) == 0:
                asked = _libc.socket(_AF_INET, _SOCK_DGRAM, 0)
                _check(_libc.setns(own, _CLONE_NEWNET), "come back from the fabric")
                # struct ifreq: the name, and flags without IFF_UP.
                fcntl.ioctl(asked, _SIOCSIFFLAGS, name.encode().ljust(16, b"\0") + bytes(24))
                os.close(asked)
            os.close(own)
            os.close(there)

    def _kill_everything(self) -> None:
        self._cut()
        if self.init and start_ticks(self.init) == self.init_ticks:
            # Process 1 takes its whole pid namespace along.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(self.init, signal.SIGKILL)
        self.cgroup.kill()

    # -- keeping -----------------------------------------------------------------------------

    def run(self) -> None:
        """The whole life of the task."""
        try:
            self.isolate()
            if self.spec.get("core_tag"):
                # A tag of its own, which its children take over. A kernel without it says no.
                _libc.prctl(_PR_SCHED_CORE, _CREATE, 0, _THREAD_GROUP, 0)
            self.guard()
            self.create()
            left, _grace, why = self.remaining_ns()
            if left <= 0 or why != "DEADLINE":
                raise Trouble("It was over before the task could start.", why)
            self._write_started()
            self.release()
        except (Trouble, OSError, KeyError, ValueError) as trouble:
            self.message = str(trouble.args[0]) if isinstance(trouble, Trouble) else repr(trouble)
            self.reason = trouble.args[1] if len(trouble.args) > 1 else "START_FAILED"
            if not isinstance(trouble, Trouble):
                self.reason = "START_FAILED"
                import traceback  # noqa: PLC0415 - only here, and slow to load

                traceback.print_exc()
            self._end(127, 0, boottime_ns(), cpu_ns=0)
            return
        status, ended, cpu_ns = self._keep()
        code = wait_code(status)
        self._end(code, os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0, ended, cpu_ns=cpu_ns)

    def _write_started(self) -> None:
        self.started = True
        clocks = {"boottime_ns": boottime_ns(), "raw_ns": raw_ns(), "wall_ns": time.time_ns()}
        own = {"boot_id": self.boot_id, "init_pid": self.init, "init_ticks": self.init_ticks}
        write_json(f"{self.folder}/started.json", own | clocks)

    def _keep(self) -> tuple[int, int, int]:
        """Wait for the task: its wait status, when it ended, its CPU time as the kernel told."""
        pidfd = os.pidfd_open(self.child)
        poll = select.poll()
        calm = select.poll()  # without the log: gathers what a chatty task says for 5 ms
        for fd in (self.control, pidfd):
            poll.register(fd, select.POLLIN)
            calm.register(fd, select.POLLIN)
        poll.register(self.log.read_fd, select.POLLIN)
        gather = False
        due_ns = 0
        while True:
            now = time.monotonic_ns()
            if now >= due_ns:  # a chatty task wakes us more often than the clock needs
                wait_ns = self.enforce()
                most_ms = 50 if self.killed else TICK_MS
                due_ns = now + max(0, min(most_ms * 1_000_000, wait_ns))
                self._reap()
            self._watch_quota()
            wait_ms = max(0, -(-(due_ns - time.monotonic_ns()) // 1_000_000))
            wait_ms = min(wait_ms, 5) if gather or self._scan else wait_ms
            scan_ns = self._scan_after_ns - time.monotonic_ns()
            wait_ms = wait_ms if self.killed else min(wait_ms, max(1, -(-scan_ns // 1_000_000)))
            ready = {fd for fd, _event in (calm if gather else poll).poll(wait_ms)}
            gather = self.log.read_fd in ready
            if self.control in ready:
                due_ns = 0
                with contextlib.suppress(BlockingIOError):
                    os.read(self.control, 4096)
            if self.log.read_fd in ready and not self.log.drain():
                poll.unregister(self.log.read_fd)
            if pidfd in ready:
                ended = boottime_ns()
                _pid, status, usage = os.wait4(self.child, 0)
                os.close(pidfd)
                return status, ended, round((usage.ru_utime + usage.ru_stime) * 1e9)

    def _reap(self) -> None:
        """Collect the guard if it died, and put another in its place."""
        if os.waitpid(self.guard_pid, os.WNOHANG)[0]:
            self.guard()

    def _watch_quota(self) -> None:
        """One slice of counting what the task has written; end it where it is too much."""
        now = time.monotonic_ns()
        if self.killed or (self._scan is None and now < self._scan_after_ns):
            return
        self._scan = self._scan or walk_usage(f"{self.folder}/work")
        result = None
        while result is None and time.monotonic_ns() < now + 5_000_000:
            result = next(self._scan)
        if result is None:
            return
        used, files = result
        left = self.spec["disk_bytes"] - used
        fill_ns = QUOTA_PAUSE_NS
        if used - self._used > left // 8:  # at this pace it may soon be too much
            fill_ns = min(QUOTA_PAUSE_NS, max(QUOTA_LEAST_NS, left // QUOTA_FASTEST))
        self._scan, self._scan_after_ns = None, time.monotonic_ns() + fill_ns
        self._used = used
        if used > self.spec["disk_bytes"] or files > self.spec["disk_inodes"]:
            limits = f"{self.spec['disk_bytes']} bytes, {self.spec['disk_inodes']} files"
            self.message = f"/work held {used} bytes in {files} files; the limit is {limits}."
            self.kill("DISK_QUOTA")

    # -- the end -----------------------------------------------------------------------------

    def _end(self, code: int, number: int, ended: int, *, cpu_ns: int) -> None:
        kills = self.cgroup.oom_kills()
        cpu_ns = self.cgroup.cpu_ns() or cpu_ns
        memory = self.cgroup.max_memory_bytes()
        if kills and not self.reason:
            self.reason = "OOM_KILLED"
            self.message = f"{kills} of its processes exceeded the memory limit and were killed."
        self.reason = self.reason or "EXITED"
        clean = self._clear_away() if self.guard_pid > 0 else True
        self.log.drain(chunks=1 << 16)
        self._write_exit(
            code, number, ended, clean=clean, cpu_ns=cpu_ns, memory=memory, oom_kills=kills
        )
        if self.guard_pid > 0:
            os.write(self.guard_pipe, b"q")

    def _write_exit(
        self,
        code: int,
        number: int,
        ended: int,
        *,
        clean: bool,
        cpu_ns: int,
        memory: int = 0,
        oom_kills: int = 0,
    ) -> None:
        record = {
            "exit_code": code,
            "signal": number,
            "started": self.started,
            "boot_id": self.boot_id,
            "ended_boottime_ns": ended,
            "ended_wall_ns": time.time_ns(),
            "oom": oom_kills > 0,
            "oom_kills": oom_kills,
            "reason": self.reason,
            "message": self.message,
            "cpu_ns": cpu_ns,
            "max_memory_bytes": memory,
            "clean": clean,
            "log_truncated": self.log.truncated,
        }
        write_json(f"{self.folder}/exit.json", record)


def _place(source: str, target: str) -> None:
    """Something of ``source``'s kind at ``target``, to mount it on."""
    os.makedirs(os.path.dirname(target), 0o755, exist_ok=True)
    if os.path.isdir(source):
        os.makedirs(target, 0o755, exist_ok=True)
    elif not os.path.exists(target):
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))


def _reap_all() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _filled(data: bytes) -> int:
    """A descriptor to read ``data`` from."""
    fd = os.memfd_create("gridlease")
    os.write(fd, data)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _child_pid(fd: int, patience_ms: int = 10_000) -> str:
    """The sandbox's process 1, as bubblewrap reports it through ``--info-fd``."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    text = b""
    while poll.poll(patience_ms):
        data = os.read(fd, 4096)
        if not data:
            break
        text += data
        with contextlib.suppress(ValueError):
            return str(json.loads(text)["child-pid"])
    raise Trouble("bubblewrap could not make the sandbox; its words are in the log")


def claim(folder: str, pid: int) -> bool:
    """Write ``shim.json`` for ``pid``; False if this folder already had a shim, ever.

    0 claims the folder for nobody, so that a shim which comes too late cannot start it.
    """
    own = {"boot_id": boot_id(), "pid": pid, "start_ticks": start_ticks(pid) if pid else -1}
    path = f"{folder}/shim.json"
    write_json(f"{path}.{os.getpid()}", own)
    try:
        os.link(f"{path}.{os.getpid()}", path)
    except FileExistsError:
        return False
    finally:
        os.unlink(f"{path}.{os.getpid()}")
    return True


def main(argv: list[str], forever: Callable[[Shim], None] = Shim.run) -> int:
    """Become the shim of ``argv[1]``."""
    folder = os.path.abspath(argv[1])
    with contextlib.suppress(PermissionError):  # already a session's leader
        os.setsid()
    os.chdir("/")
    os.umask(0o022)
    words = os.open(f"{folder}/shim.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    # Not /dev/null: crun gives its standard streams to the task's user, the host's node too.
    null, end = os.pipe()
    os.close(end)
    for source, target in ((null, 0), (words, 1), (words, 2)):
        os.dup2(source, target)
    os.closerange(3, 1024)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    with contextlib.suppress(OSError):
        # Ahead of the leases, whose parent weighs much; our children begin in the ordinary place.
        os.sched_setscheduler(0, os.SCHED_OTHER | os.SCHED_RESET_ON_FORK, os.sched_param(0))
        os.setpriority(os.PRIO_PROCESS, 0, -15)
    if not claim(folder, os.getpid()):
        return 3
    forever(Shim(folder))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
