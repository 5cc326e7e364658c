"""The host's own readings: processors, memory, networks, power."""

from __future__ import annotations

import os
import re
from pathlib import Path

from gridlease_kernel.faults import Invalid
from gridlease_mesh.telemetry_sample import HostReadings

from gridlease_agent.executor.codec import Handle
from gridlease_agent.sampling.cell import ABSENT, Cell, derived, measured, qualities
from gridlease_agent.sampling.kept import KeptFiles

_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
_IDLE = (3, 4)  # idle and iowait among the columns of /proc/stat
_RAPL = "sys/class/powercap"
_ZONE = re.compile(r"[a-z-]+:[0-9]{1,3}")


def energy_zones(root: Path = Path("/")) -> tuple[str, ...]:
    """The processors' packages that count the energy they use."""
    found = sorted(path.name for path in (root / _RAPL).glob("intel-rapl:[0-9]*"))
    return tuple(name for name in found if _ZONE.fullmatch(name))


def open_energy(zone: str, root: Path = Path("/")) -> Handle | None:
    """A package's counter, open: the file is root's alone (CVE-2020-8694); None = there is none.

    Raises:
        Invalid: BAD_NAME.
    """
    if _ZONE.fullmatch(zone) is None:
        raise Invalid(f"{zone[:64]!r} is no zone.", reason="BAD_NAME", field="zone")
    try:
        return Handle(os.open(root / energy_file(zone), os.O_RDONLY | os.O_CLOEXEC))
    except OSError:
        return None


def energy_file(zone: str) -> str:
    """Under which name the sampler reads a zone's counter."""
    return f"{_RAPL}/{zone}/energy_uj"


class HostSampler:
    """Reads the host; power is the slope of its energy counters since the reading before."""

    def __init__(self, files: KeptFiles, disk: str = "/") -> None:
        self._files = files
        self._disk = disk
        self._zones = [energy_file(zone) for zone in energy_zones(files.root)]
        self._before: tuple[int, int] | None = None  # (ns, µJ)

    def read(self, now_ns: int) -> HostReadings:
        """All of it. ``now_ns``: a monotonic clock's."""
        received, sent = self._network()
        cells = (
            measured(self._cpu_ns()),
            derived(self._memory()),
            measured(received),
            measured(sent),
            derived(self._disk_used()),
            self._power(now_ns),
            measured(self._files.number("sys/class/thermal/thermal_zone0/temp")),
        )
        return HostReadings._make([*(cell.value for cell in cells), qualities(cells)])

    def _cpu_ns(self) -> int | None:
        line = self._files.text("proc/stat").partition("\n")[0].split()
        if line[:1] != ["cpu"]:
            return None
        ticks = [int(word) for word in line[1:9]]
        return sum(n for at, n in enumerate(ticks) if at not in _IDLE) * _TICK_NS

    def _memory(self) -> int | None:
        rows = dict(
            line.split(":", 1)
            for line in self._files.text("proc/meminfo").splitlines()
            if line.startswith(("MemTotal:", "MemAvailable:"))
        )
        if len(rows) < 2:
            return None
        total, free = (int(rows[name].split()[0]) for name in ("MemTotal", "MemAvailable"))
        return (total - free) * 1024

    def _network(self) -> tuple[int | None, int | None]:
        received = sent = 0
        lines = self._files.text("proc/net/dev").splitlines()[2:]
        for line in lines:
            name, _colon, counters = line.partition(":")
            if name.strip() != "lo":
                numbers = counters.split()
                received, sent = received + int(numbers[0]), sent + int(numbers[8])
        return (received, sent) if lines else (None, None)

    def _disk_used(self) -> int | None:
        try:
            facts = os.statvfs(self._disk)
        except OSError:
            return None
        return (facts.f_blocks - facts.f_bfree) * facts.f_frsize

    def _power(self, now_ns: int) -> Cell:
        readings = [self._files.number(zone) for zone in self._zones]
        if not readings or any(reading is None for reading in readings):
            return ABSENT
        energy_uj = sum(reading for reading in readings if reading is not None)
        before, self._before = self._before, (now_ns, energy_uj)
        # A counter that wrapped gives no slope once.
        if before is None or energy_uj < before[1] or now_ns <= before[0]:
            return ABSENT
        return derived((energy_uj - before[1]) * 1_000_000 // (now_ns - before[0]))
