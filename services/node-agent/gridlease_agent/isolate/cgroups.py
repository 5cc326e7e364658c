"""Which cgroups this host has, and what a sandbox's cgroup has counted."""

from __future__ import annotations

import enum
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from gridlease_agent import shim

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


def cgroup_of(folder: Path) -> str:
    """The cgroup of a sandbox made in this folder of a lease, relative to each hierarchy's root.

    It bears a mark of the node's own folder: two nodes of one host may hold leases of one name.
    """
    mark = hashlib.sha256(str(folder.parent).encode()).hexdigest()[:6]
    return f"{PARENT}/{mark}.{folder.name}"


def recorded(folder: Path) -> str:
    """The cgroup of the sandbox in this folder, whoever named it and how; "" where it has none."""
    plan = shim.read_json(str(folder / "spec.json")) or {}
    name: str = plan.get("cgroup", "")
    return name


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


def counters(name: str, root: Path = ROOT) -> Counters | None:
    """What a lease's cgroup has counted, or None where there is no such cgroup."""
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


# Of all leases together, beside the host's own processes, each of which weighs 1,024 (v2: 100).
# So high that what runs on the host matters little to leases (one lease a core: 64 to 1). The
# keepers, which hold the deadlines, run at nice -15, so that they do not wait for it.
_FENCE_SHARES, _FENCE_WEIGHT = 131_072, 10_000


def fence(root: Path = ROOT) -> bool:
    """Give the parent of all leases its high share; whether it has it now."""
    found = mode(root)
    if found is CgroupMode.NONE:
        return False
    v2 = found is CgroupMode.V2
    folder = root / PARENT if v2 else root / "cpu" / PARENT
    path = folder / ("cpu.weight" if v2 else "cpu.shares")
    wanted = _FENCE_WEIGHT if v2 else _FENCE_SHARES
    try:
        folder.mkdir(exist_ok=True)
        if _number(path) != wanted:
            path.write_text(str(wanted), "ascii")
    except OSError:
        return False
    return True


def disk_of(folder: Path, root: Path = Path("/sys/dev/block")) -> str:
    """The whole disk under a folder as "major:minor"; "" where it is none that can be limited."""
    number = folder.stat().st_dev
    major, minor = os.major(number), os.minor(number)
    if major == 0:  # a file system without a disk of its own
        return ""
    here = (root / f"{major}:{minor}").resolve()
    if (here / "partition").exists():
        here = here.parent
    try:
        return (here / "dev").read_text("ascii").strip()
    except OSError:
        return ""
