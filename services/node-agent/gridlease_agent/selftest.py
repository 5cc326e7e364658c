"""The host's test at start: may it be lent at all, and how fast is it? Bounded, blocking.

The checks run at every start. The burn-in runs once a boot and driver: its score is kept with
both, so that an agent that starts again does not take the time of what runs here.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from gridlease_kernel.clock import Clock

from gridlease_agent.domain.fitness import Finding, Fitness, Speeds, ailment, clocks, score

_LOG = logging.getLogger(__name__)
_BLOCK = bytes(range(256)) * 4096  # 1 MiB
_BLOCK_SHA256 = "fbbab289f7f94b25736c58be46a994c441fd02552cc6022352e3d86d2fab7c83"
_LEAST_FREE_BYTES = 256 << 20
_BUILT_S = 1_760_000_000  # October 2025: no time of day lies before it
_CONTROLLERS = ("cpu", "memory", "pids")


class SelfTest:
    """Looks at one host. ``root``: of what is read of the kernel; tests give another."""

    def __init__(self, state: Path, clock: Clock, root: Path = Path("/")) -> None:
        self._state = state
        self._clock = clock
        self._root = root

    def __call__(self, boot_id: str, drivers: Mapping[str, str], burn_in_ms: int) -> Fitness:
        """What it found.

        Args:
            boot_id: the score is kept until another boot,
            drivers: or other drivers, by toolkit.
            burn_in_ms: about how long to measure; 0 = not at all.
        """
        before = self._clock.boottime_ns(), self._clock.raw_ns()
        findings = [self._disk(), self._seccomp(), self._cgroups(), self._arithmetic()]
        measured = self._scored(boot_id, drivers, burn_in_ms) if burn_in_ms > 0 else 0
        after = self._clock.boottime_ns(), self._clock.raw_ns()
        wall_s = self._clock.wall().timestamp()
        findings.append(clocks(after[0] - before[0], after[1] - before[1], wall_s, _BUILT_S))
        found = Fitness(measured, ailment(findings))
        if found.ailment:
            _LOG.error("this host is not fit to be lent", extra={"ailment": found.ailment})
        return found

    # -- checks ---------------------------------------------------------------------------------

    def _disk(self) -> Finding:
        """What is written is there when it is read again, and there is room."""
        path = self._state / "selftest"
        try:
            free = shutil.disk_usage(self._state).free
            if free < _LEAST_FREE_BYTES:
                return Finding("disk", f"{free >> 20} MiB are free")
            with path.open("wb") as file:
                file.write(_BLOCK)
                file.flush()
                os.fsync(file.fileno())
            kept = path.read_bytes() == _BLOCK
        except OSError as trouble:
            return Finding("disk", f"{trouble.strerror}")
        finally:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
        return Finding("disk", "" if kept else "it does not keep what is written")

    def _seccomp(self) -> Finding:
        """The kernel can filter system calls."""
        name = "proc/sys/kernel/seccomp/actions_avail"
        try:
            known = (self._root / name).read_text("ascii").split()
        except OSError:
            return Finding("seccomp", "this kernel cannot filter system calls")
        lacking = {"errno", "kill_process"} - set(known)
        return Finding("seccomp", f"it lacks {', '.join(sorted(lacking))}" if lacking else "")

    def _cgroups(self) -> Finding:
        """Where limits can be set at all, the ones that tasks need can be."""
        if os.geteuid() != 0:
            return Finding("cgroup")  # an ordinary user sets none, and the inventory says so
        enabled: set[str] = set()
        with contextlib.suppress(OSError):  # lists what version 1 knows
            rows = (self._root / "proc/cgroups").read_text("ascii").splitlines()[1:]
            enabled |= {row.split()[0] for row in rows if row.split()[3:4] == ["1"]}
        with contextlib.suppress(OSError):
            version_2 = self._root / "sys/fs/cgroup/cgroup.controllers"
            enabled |= set(version_2.read_text("ascii").split())
        if not enabled:
            return Finding("cgroup", "this kernel has none")
        lacking = [name for name in _CONTROLLERS if name not in enabled]
        return Finding("cgroup", f"{', '.join(lacking)} cannot be limited" if lacking else "")

    @staticmethod
    def _arithmetic() -> Finding:
        """A processor that gives another answer than all others is not lent."""
        copied = bytes(bytearray(_BLOCK))
        right = hashlib.sha256(copied).hexdigest() == _BLOCK_SHA256
        return Finding("processor", "" if right else "it computes wrongly")

    # -- burn-in --------------------------------------------------------------------------------

    def _scored(self, boot_id: str, drivers: Mapping[str, str], burn_in_ms: int) -> int:
        path, key = self._state / "burn-in.json", {"boot_id": boot_id, "drivers": dict(drivers)}
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            kept = json.loads(path.read_text("utf-8"))
            if {"boot_id": kept["boot_id"], "drivers": kept["drivers"]} == key:
                return int(kept["score"])
        try:
            speeds = self._measure(burn_in_ms / 3000)
        except OSError as trouble:
            _LOG.warning("the burn-in could not be run: %s", trouble)
            return 0
        found = score(speeds)
        facts = {
            "score": found,
            "cpu_mbps": speeds.cpu_mbps,
            "memory_mbps": speeds.memory_mbps,
            "disk_mbps": speeds.disk_mbps,
        }
        _LOG.info("the burn-in is done", extra=facts)
        with contextlib.suppress(OSError):
            path.write_text(json.dumps(key | facts), "utf-8")
        return found

    def _measure(self, each_s: float) -> Speeds:
        held = bytearray(_BLOCK * 16)
        target = bytearray(len(held))

        def hashed() -> int:
            hashlib.sha256(_BLOCK).digest()
            return len(_BLOCK)

        def copied() -> int:
            target[:] = held
            return len(held)

        path = self._state / "burn-in"
        try:
            with path.open("wb") as file:

                def written() -> int:
                    file.seek(0)
                    for _ in range(8):
                        file.write(_BLOCK)
                    file.flush()
                    os.fsync(file.fileno())
                    return 8 * len(_BLOCK)

                return Speeds(_mbps(hashed, each_s), _mbps(copied, each_s), _mbps(written, each_s))
        finally:
            path.unlink(missing_ok=True)


def _mbps(work: Callable[[], int], span_s: float) -> int:
    """How many 10^6 bytes a second, over about that span and at least once."""
    began, done = time.perf_counter(), 0
    while True:
        done += work()
        spent = time.perf_counter() - began
        if spent >= span_s:
            return round(done / spent / 1e6)
