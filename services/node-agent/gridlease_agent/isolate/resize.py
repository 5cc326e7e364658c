"""Other limits for a sandbox that is there already: what a lease holds, once it has one."""

from __future__ import annotations

import contextlib
from pathlib import Path

from gridlease_agent.isolate import cgroups
from gridlease_agent.isolate.cgroups import CgroupMode

_PERIOD_US = 100_000
_LEAST_SHARES = 2  # Source: kernel, sched/sched.h, MIN_SHARES


def resize(
    name: str, memory_bytes: int, cpu_milli: int, cpus: str = "", root: Path = cgroups.ROOT
) -> None:
    """Write them into a cgroup; as ``crun`` would have.

    Raises:
        OSError: the cgroup is not there, or holds more than that already.
    """
    quota_us = cpu_milli * _PERIOD_US // 1000
    shares = max(_LEAST_SHARES, cpu_milli * 1024 // 1000)
    if cgroups.mode(root) is CgroupMode.V2:
        folder = root / name
        (folder / "memory.max").write_text(str(memory_bytes))
        (folder / "cpu.max").write_text(f"{quota_us} {_PERIOD_US}")
        (folder / "cpu.weight").write_text(str(_weight(shares)))
        if cpus:
            (folder / "cpuset.cpus").write_text(cpus)
        return
    _memory_v1(root / "memory" / name, memory_bytes)
    (root / "cpu" / name / "cpu.cfs_period_us").write_text(str(_PERIOD_US))
    (root / "cpu" / name / "cpu.cfs_quota_us").write_text(str(quota_us))
    (root / "cpu" / name / "cpu.shares").write_text(str(shares))
    if cpus:
        (root / "cpuset" / name / "cpuset.cpus").write_text(cpus)


def _memory_v1(folder: Path, memory_bytes: int) -> None:
    """Memory alone never above memory and swap: the order depends on which way it goes."""
    alone, both = folder / "memory.limit_in_bytes", folder / "memory.memsw.limit_in_bytes"
    if not both.exists():
        alone.write_text(str(memory_bytes))
        return
    with contextlib.suppress(OSError):  # refused where it shrinks: then the second time counts
        both.write_text(str(memory_bytes))
    alone.write_text(str(memory_bytes))
    both.write_text(str(memory_bytes))


def _weight(shares: int) -> int:
    """Source: crun, src/libcrun/cgroup-utils.c, the same as systemd's and runc's."""
    return 1 + ((min(max(shares, 2), 262_144) - 2) * 9_999) // 262_142
