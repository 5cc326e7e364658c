"""Readings of the leases' cgroups, v1 and v2."""

from __future__ import annotations

from collections.abc import Mapping

from gridlease_mesh.telemetry_sample import LeaseReadings

from gridlease_agent.isolate.cgroups import CgroupMode, mode
from gridlease_agent.sampling.cell import ABSENT, Cell, columns, derived, measured
from gridlease_agent.sampling.kept import KeptFiles

_BASE = "sys/fs/cgroup"
_WIDTH = 6


class LeaseSampler:
    """Reads the cgroups of leases; files of leases that are gone are let go."""

    def __init__(self, files: KeptFiles) -> None:
        self._files = files
        self._mode = mode(files.root / _BASE)
        self._known: frozenset[str] = frozenset()

    def read(self, leases: Mapping[str, str]) -> LeaseReadings:
        """One row a lease, in the order given. ``leases``: lease -> its cgroup, "" = none known."""
        names = frozenset(leases.values())
        for gone in self._known - names:
            for controller in ("", "cpuacct/", "memory/", "blkio/", "pids/"):
                self._files.forget_below(f"{_BASE}/{controller}{gone}/")
        self._known = names - {""}
        row = self._row_v2 if self._mode is CgroupMode.V2 else self._row_v1
        rows = [row(name) if name else (ABSENT,) * _WIDTH for name in leases.values()]
        numbers, quality = columns(rows, _WIDTH)
        return LeaseReadings._make([*numbers, quality])

    def _row_v1(self, name: str) -> tuple[Cell, ...]:
        number = self._files.number
        return (
            measured(number(f"{_BASE}/cpuacct/{name}/cpuacct.usage")),
            measured(number(f"{_BASE}/memory/{name}/memory.usage_in_bytes")),
            measured(number(f"{_BASE}/memory/{name}/memory.max_usage_in_bytes")),
            *self._disk_v1(f"{_BASE}/blkio/{name}/blkio.throttle.io_service_bytes"),
            measured(number(f"{_BASE}/pids/{name}/pids.current")),
        )

    def _disk_v1(self, file: str) -> tuple[Cell, Cell]:
        rows = [line.split() for line in self._files.text(file).splitlines()]
        if not rows:
            return ABSENT, ABSENT
        read, written = (
            sum(int(row[2]) for row in rows if len(row) == 3 and row[1] == word)
            for word in ("Read", "Write")
        )
        return derived(read), derived(written)

    def _row_v2(self, name: str) -> tuple[Cell, ...]:
        folder, number = f"{_BASE}/{name}", self._files.number
        used = dict(
            line.split(" ", 1)
            for line in self._files.text(f"{folder}/cpu.stat").splitlines()
            if " " in line
        ).get("usage_usec")
        return (
            measured(None if used is None else int(used) * 1000),
            measured(number(f"{folder}/memory.current")),
            measured(number(f"{folder}/memory.peak")),
            *self._disk_v2(f"{folder}/io.stat"),
            measured(number(f"{folder}/pids.current")),
        )

    def _disk_v2(self, file: str) -> tuple[Cell, Cell]:
        text = self._files.text(file)
        if not text:
            return ABSENT, ABSENT
        words = [word.partition("=") for line in text.splitlines() for word in line.split()[1:]]
        read, written = (
            sum(int(count) for key, _equals, count in words if key == wanted)
            for wanted in ("rbytes", "wbytes")
        )
        return derived(read), derived(written)
