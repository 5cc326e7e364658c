"""Sandboxes of this node: start, extend, stop and look at them, through their shims' folders.

Nothing here keeps state: what there is to know lies in ``leases/<lease_id>/`` (see ``shim.py``
for who writes what), so an agent that starts again finds every sandbox as it was.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import shutil
import threading
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from gridlease_kernel.faults import Exists, Missing, Precondition

from gridlease_agent import shim
from gridlease_agent.domain.warm import PREFIX
from gridlease_agent.isolate import cgroups
from gridlease_agent.isolate.ground import BARE, Ground
from gridlease_agent.isolate.rootfs import HostRoot
from gridlease_agent.isolate.rootfs import read as read_host
from gridlease_agent.keeper.build import Keeper, keeper_for
from gridlease_agent.runtimes import bwrap, crun, devices, image, secrets
from gridlease_agent.runtimes.choose import Runtime
from gridlease_agent.runtimes.sight import Sight
from gridlease_agent.runtimes.spec import SandboxSpec
from gridlease_agent.runtimes.states import (
    Absent,
    Deadline,
    Exit,
    Exited,
    Looked,
    Running,
    SandboxRunner,
    SandboxState,
    Starting,
    Word,
)
from gridlease_agent.runtimes.work import give, scrub

__all__ = [
    "Absent",
    "Deadline",
    "Exit",
    "Exited",
    "Looked",
    "Running",
    "SandboxRunner",
    "SandboxState",
    "Sandboxes",
    "Starting",
    "Word",
    "scrub",
    "try_runtime",
]
_CLAIM_PATIENCE_NS = 10_000_000_000


class Sandboxes:
    """Real sandboxes under ``state_dir/leases``."""

    def __init__(
        self,
        state_dir: Path,
        runtime: Runtime,
        host: HostRoot | None = None,
        table: devices.DeviceTable = devices.NO_DEVICES,
        ground: Ground = BARE,
        roots: image.Roots | None = None,
        keeper: Keeper | None = None,
    ) -> None:
        self._leases = state_dir.absolute() / "leases"
        self._runtime = runtime
        self._host = host or read_host()
        self._table = table
        self._roots = roots or image.NoRoots()
        self._ground = ground
        self._leases.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._shims: set[int] = set()
        self._sight = Sight()
        self._first: dict[str, tuple[int, int]] = {}  # lease -> its first process, and its start
        self._looking = threading.Lock()
        self._state, self._keeper = state_dir, keeper

    @property
    def keeper(self) -> Keeper:
        """Who keeps the tasks; made at the first question."""
        self._keeper = self._keeper or keeper_for(self._state.absolute())
        return self._keeper

    @property
    def ground(self) -> Ground:
        """What they stand on."""
        return self._ground

    def folder(self, lease_id: str) -> Path:
        """Where the lease's files lie: ``log``, ``work/`` and the records."""
        return self._leases / lease_id

    def prepare(self, lease_id: str) -> Path:
        """Make the lease's folder; the job's files go into the ``work`` that it answers."""
        folder = self.folder(lease_id)
        folder.mkdir(mode=0o700, exist_ok=True)
        (folder / "work").mkdir(mode=0o755, exist_ok=True)
        (folder / "notice").mkdir(mode=0o755, exist_ok=True)
        return folder / "work"

    def start(self, lease_id: str, spec: SandboxSpec, deadline: Deadline) -> None:
        """Write the folder durably and let a shim loose on it; does not wait for the task.

        Raises:
            Exists: SANDBOX_EXISTS; a lease starts at most once.
            Precondition: SHIM_NOT_STARTED.
        """
        assert spec.lease_id == lease_id, (spec.lease_id, lease_id)
        self.prepare(lease_id)
        folder = self.folder(lease_id)
        if (folder / "spec.json").exists():
            raise Exists(
                f"Lease {lease_id} was started here before.",
                reason="SANDBOX_EXISTS",
                field="lease_id",
                remedy="Place the task again under a new lease.",
            )
        if self._runtime.root:
            give(folder / "work", spec.host_uid)
        with contextlib.suppress(FileExistsError):
            os.mkfifo(folder / "control", 0o600)
        # Whole, and on disk with the plan's folder: after a power cut it is another boot's anyway.
        draft = folder / "deadline.json.new"
        draft.write_text(json.dumps(dataclasses.asdict(deadline)), "utf-8")
        draft.replace(folder / "deadline.json")
        spec = self._ground.ready(spec)
        try:
            spec = secrets.shown(spec, folder, held=bool(spec.hold))
            shim.write_json(str(folder / "spec.json"), self._render(spec, folder))
        except BaseException:
            secrets.forget(folder)
            self._ground.left(lease_id)
            raise
        self._ground.settled(lease_id)
        _fsync(self._leases)
        self._collect()
        self._shims.add(self.keeper.launch(folder))

    def _collect(self) -> None:
        """Reap shims of ours that ended; a shim of an earlier agent is init's child."""
        for pid in list(self._shims):
            with contextlib.suppress(ChildProcessError):
                if os.waitpid(pid, os.WNOHANG)[0] == 0:
                    continue
            self._shims.discard(pid)

    def _render(self, spec: SandboxSpec, folder: Path) -> dict[str, Any]:
        program = self._runtime.program
        if self._runtime.name == "crun":
            plan = crun.render(spec, self._host, str(folder), program)
            return image.rooted(devices.given(plan, spec, self._table), spec, self._roots)
        devices.refused(spec)
        plan = bwrap.render(spec, self._host, str(folder), program, root=self._runtime.root)
        return image.rooted(plan, spec, self._roots)

    def extend(self, lease_id: str, deadline: Deadline) -> None:
        """Replace the deadline and tell the shim; what the shim misses it reads within a tick."""
        record = {
            "boot_id": deadline.boot_id,
            "boottime_ns": deadline.boottime_ns,
            "raw_ns": deadline.raw_ns,
            "grace_ms": deadline.grace_ms,
        }
        shim.write_json(str(self._existing(lease_id) / "deadline.json"), record)
        self.poke(lease_id)

    def stop(
        self, lease_id: str, notice_ms: int, reason: str = "STOPPED", word: Word = ("", "")
    ) -> None:
        """SIGTERM and the notice file now, the kill after ``notice_ms`` (or at the deadline).

        ``reason`` becomes the exit's; the task is told ``word``. Those of the first stop stay.
        """
        at = shim.boottime_ns() + notice_ms * 1_000_000
        path = self._existing(lease_id) / "stop.json"
        words = {"reason": reason, "code": word[0], "message": word[1]}
        earlier = shim.read_json(str(path))
        if earlier is not None and earlier["boot_id"] == shim.boot_id():
            at = min(at, earlier["boottime_ns"])  # a stop is never taken back or put off
            words = {key: earlier.get(key, word) for key, word in words.items()}
        shim.write_json(str(path), {"boot_id": shim.boot_id(), "boottime_ns": at} | words)
        self.poke(lease_id)

    def kill(self, lease_id: str) -> None:
        """End it now, without a warning that could be used."""
        self.stop(lease_id, 0)

    def inspect(self, lease_id: str) -> SandboxState:
        """What the lease's folder and its shim's life say."""
        folder = self.folder(lease_id)
        own = shim.read_json(str(folder / "shim.json"))
        started = shim.read_json(str(folder / "started.json"))
        # The order matters: the shim's life is looked at before its last word.
        alive = own is not None and _alive(own)
        record = shim.read_json(str(folder / "exit.json"))
        since = started["boottime_ns"] if started else 0
        if record is not None:
            return Exited(Exit(**record), since)
        if own is None:
            return self._unclaimed(folder)
        if not alive:
            return Exited(_lost(own, started), since)
        if started is None:
            return Starting()
        return Running(since, started["wall_ns"])

    def runs(self, lease_id: str) -> bool:
        """Whether the task's first process lives at this very moment."""
        first = self._first.get(lease_id)
        if first is None:
            started = shim.read_json(str(self.folder(lease_id) / "started.json"))
            if not started or started["boot_id"] != shim.boot_id():
                return False
            first = self._first[lease_id] = (started["init_pid"], started["init_ticks"])
        return _lives(*first)

    @staticmethod
    def _unclaimed(folder: Path) -> SandboxState:
        """A spec without a shim: on its way, unless it has been for too long."""
        try:
            age_ns = time.time_ns() - (folder / "spec.json").stat().st_mtime_ns
        except FileNotFoundError:
            return Absent()
        if age_ns < _CLAIM_PATIENCE_NS:
            return Starting()
        if shim.claim(str(folder), 0):  # from now on no late shim can start it
            (folder / "control").unlink(missing_ok=True)
        return Exited(_lost({"boot_id": shim.boot_id()}, None), 0)

    def list(self) -> list[str]:
        """Every lease that has a folder here."""
        self._collect()
        self._ground.keep_up()
        return sorted(entry.name for entry in self._leases.iterdir() if entry.is_dir())

    def egress_bytes(self) -> Mapping[str, int]:
        """What each task with a network has sent since it was made: lease -> bytes."""
        return self._ground.egress_bytes()

    def look(self) -> tuple[Looked, ...]:
        """All sandboxes of leases; those made ahead for none yet are the pool's to look at."""
        with self._looking:
            known = self._sight.still()
            here = [each for each in self.list() if not each.startswith(PREFIX)]
            return tuple(known.get(each) or self._looked(each) for each in here)

    def _looked(self, lease_id: str) -> Looked:
        own = shim.read_json(str(self.folder(lease_id) / "shim.json")) or {"pid": 0}
        keeper = self._sight.open(own["pid"]) if own["pid"] else -1
        state = self.inspect(lease_id)  # after it was opened: the pid is the keeper's
        alive = isinstance(state, Starting | Running)
        cgroup = cgroups.recorded(self.folder(lease_id)) if alive else ""
        looked = Looked(lease_id, state, own["pid"] if alive else 0, cgroup)
        if isinstance(state, Running) and keeper >= 0:
            self._sight.keep(looked, keeper)
        elif keeper >= 0:
            os.close(keeper)
        return looked

    def alive(self, lease_ids: Collection[str]) -> tuple[str, ...]:
        """Those whose task's first process lives at this very moment."""
        return tuple(lease_id for lease_id in lease_ids if self.runs(lease_id))

    def remove(self, lease_id: str) -> None:
        """Wipe the sandbox's folder, except the log, the records and the outputs to keep.

        Raises:
            Precondition: SANDBOX_RUNNING.
        """
        folder = self._existing(lease_id)
        # A lost keeper's task is over by its record while its guard is still ending it.
        if isinstance(self.inspect(lease_id), Starting | Running) or self.runs(lease_id):
            raise Precondition(
                f"Lease {lease_id} still runs here.",
                reason="SANDBOX_RUNNING",
                remedy="Stop it and wait for its end.",
            )
        spec = shim.read_json(str(folder / "spec.json")) or {}
        scrub(folder / "work", spec.get("keep", []))
        secrets.forget(folder)
        for name in ("notice", "stage"):
            shutil.rmtree(folder / name, ignore_errors=True)
        (folder / "control").unlink(missing_ok=True)
        self._ground.left(lease_id)
        self._first.pop(lease_id, None)
        _fsync(folder)

    def _existing(self, lease_id: str) -> Path:
        folder = self.folder(lease_id)
        if not folder.is_dir():
            raise Missing(
                f"No sandbox of lease {lease_id} is here.",
                reason="SANDBOX_MISSING",
                field="lease_id",
            )
        return folder

    def poke(self, lease_id: str) -> None:
        """Have the keeper read what was written for it, now."""
        try:
            fd = os.open(self.folder(lease_id) / "control", os.O_WRONLY | os.O_NONBLOCK)
        except OSError as trouble:
            if trouble.errno in (errno.ENXIO, errno.ENOENT):
                return  # nobody listens: it has not begun, or it is over
            raise
        try:
            os.write(fd, b"\n")
        except (BlockingIOError, BrokenPipeError):
            pass
        finally:
            os.close(fd)


def _alive(own: Mapping[str, Any]) -> bool:
    """Whether the process that wrote ``shim.json`` still is: same boot, pid and start."""
    return own["boot_id"] == shim.boot_id() and _lives(own.get("pid", 0), own["start_ticks"])


def _lives(pid: int, ticks: int) -> bool:
    """Whether a process that began at these ticks is there and no zombie."""
    stat = shim.read_text(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return len(stat) > 19 and int(stat[19]) == ticks and stat[0] not in "ZX"


def _lost(own: Mapping[str, Any], started: Mapping[str, Any] | None) -> Exit:
    rebooted = own["boot_id"] != shim.boot_id()
    return Exit(
        reason="NODE_REBOOT" if rebooted else "START_LOST",
        exit_code=137,
        signal=9,
        started=started is not None,
        boot_id=own["boot_id"],
        ended_boottime_ns=0,
        ended_wall_ns=0,
        oom=False,
        oom_kills=0,
        message="The host restarted." if rebooted else "The task's keeper left no exit record.",
        cpu_ns=0,
        max_memory_bytes=0,
        clean=rebooted,
        log_truncated=False,
    )


def _fsync(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def try_runtime(runtime: Runtime, state_dir: Path, patience_s: float = 15.0) -> str:
    """Run ``true`` once in a sandbox of ``runtime``: "" if it worked, else the trouble."""
    sandboxes = Sandboxes(state_dir, runtime)
    lease_id = f"probe-{os.getpid()}"
    spec = SandboxSpec(lease_id, ("/bin/true",), uid_base=2_000_000_000)
    sandboxes.start(lease_id, spec, Deadline.after(round(patience_s * 1000), 0))
    until = time.monotonic() + patience_s + 5
    while time.monotonic() < until:
        state = sandboxes.inspect(lease_id)
        if isinstance(state, Exited):
            if state.record.exit_code == 0:
                return ""
            log = (sandboxes.folder(lease_id) / "log").read_text("utf-8", "replace").strip()
            return state.record.message or log or f"exit code {state.record.exit_code}"
        time.sleep(0.005)
    return "it did not end in time"
