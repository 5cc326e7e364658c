"""The host's processors, and how much of them the agent may hand out."""

from __future__ import annotations

from pathlib import Path

from gridlease_agent.probes.facts import CpuFacts
from gridlease_agent.probes.reading import limits, text


def probe(root: Path = Path("/")) -> CpuFacts:
    """Model, CPUs online, and the smallest of affinity and every cgroup quota above us."""
    info = text(root, "proc/cpuinfo").splitlines()
    online = sum(line.startswith("processor") for line in info) or 1
    usable_milli = _listed(text(root, "proc/self/status")) * 1000 or online * 1000
    return CpuFacts(
        model=_model(root, info),
        online=online,
        usable_milli=min([usable_milli, online * 1000, *_quotas_milli(root)]),
        threads_per_core=_threads_per_core(root),
    )


def _model(root: Path, info: list[str]) -> str:
    # x86 says "model name", many ARM boards only name the board.
    for line in info:
        key, _colon, value = line.partition(":")
        if key.strip() in ("model name", "Hardware", "cpu model"):
            return value.strip()
    return text(root, "proc/device-tree/model") or "unknown"


def _listed(status: str) -> int:
    """How many CPUs ``Cpus_allowed_list: 0-3,8`` names."""
    for line in status.splitlines():
        if line.startswith("Cpus_allowed_list:"):
            return _counted(line.split(":")[1])
    return 0


def _counted(numbers: str) -> int:
    spans = [span.split("-") for span in numbers.strip().split(",") if span]
    return sum(int(span[-1]) - int(span[0]) + 1 for span in spans)


def _threads_per_core(root: Path) -> int:
    """Of the core that has most; 0 where the kernel does not say."""
    pattern = "sys/devices/system/cpu/cpu[0-9]*/topology/thread_siblings_list"
    lists = [text(path.parent, path.name) for path in root.glob(pattern)]
    return max((_counted(each) for each in lists if each), default=0)


def _quotas_milli(root: Path) -> list[int]:
    quotas: list[int] = []
    for value in limits(root, "cpu", "cpu.cfs_quota_us", "cpu.max"):
        quota, _blank, period = value.partition(" ")
        if quota not in ("max", "-1"):
            # v1 keeps the period in a second file; its default is 100 ms.
            quotas.append(int(quota) * 1000 // int(period or 100_000))
    return quotas
