"""Which cgroups this host has, and what a sandbox's cgroup has counted."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
PARENT = "gridlease"


class CgroupMode(enum.Enum):
    """How controllers are laid out. HYBRID: v1 controllers beside a v2 tree."""

    NONE = "none"
    V1 = "v1"
    HYBRID = "hybrid"
    V2 = "v2"


def mode(root: Path = ROOT) -> CgroupMode:
    """The host's layout, from the files that each has."""
    if (root / "cgroup.controllers").exists():
        return CgroupMode.V2
    if not (root / "memory").is_dir() and not (root / "cpu").is_dir():
        return CgroupMode.NONE
    unified = root / "unified" / "cgroup.controllers"
    return CgroupMode.HYBRID if unified.exists() else CgroupMode.V1


def cgroup_of(lease_id: str) -> str:
    """The cgroup of a lease, relative to each hierarchy's root."""
    return f"{PARENT}/{lease_id}"


@dataclass(frozen=True, slots=True)
class Counters:
    """Cumulative since the sandbox began, except ``memory_bytes`` (now)."""

    cpu_ns: int
    memory_bytes: int
    pids: int


def _number(path: Path) -> int:
    try:
        return int(path.read_text("ascii"))
    except (OSError, ValueError):
        return 0


def counters(lease_id: str, root: Path = ROOT) -> Counters | None:
    """What the lease's cgroup has counted, or None where there is no such cgroup."""
    name = cgroup_of(lease_id)
    if mode(root) is CgroupMode.V2:
        folder = root / name
        try:
            rows = dict(line.split() for line in (folder / "cpu.stat").read_text().splitlines())
        except (OSError, ValueError):
            return None
        cpu_ns = int(rows.get("usage_usec", "0")) * 1000
        return Counters(
            cpu_ns, _number(folder / "memory.current"), _number(folder / "pids.current")
        )
    if not (root / "cpuacct" / name).is_dir():
        return None
    return Counters(
        _number(root / "cpuacct" / name / "cpuacct.usage"),
        _number(root / "memory" / name / "memory.usage_in_bytes"),
        _number(root / "pids" / name / "pids.current"),
    )
