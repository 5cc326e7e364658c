"""Limits of a sandbox beyond memory, CPU time and processes: cores, shares, disk bandwidth.

What the host's cgroups cannot do is left out here and told in the node's capabilities
(``isolate.told``).
"""

from __future__ import annotations

from typing import Any

from gridlease_agent.isolate.cgroups import CgroupMode
from gridlease_agent.runtimes.spec import SandboxSpec

_LEAST_SHARES = 2  # Source: kernel, sched/sched.h, MIN_SHARES


def apply(config: dict[str, Any], spec: SandboxSpec, mode: CgroupMode) -> None:
    """Write them into an OCI configuration.

    Source: OCI runtime specification 1.0.2, config-linux.md.
    """
    resources = config["linux"]["resources"]
    # Beside the quota: who was promised more is asked first where the host is short of time.
    resources["cpu"]["shares"] = max(_LEAST_SHARES, spec.cpu_milli * 1024 // 1000)
    if spec.cpus:
        resources["cpu"]["cpus"] = spec.cpus
    if spec.io_device and spec.io_bytes_per_s:
        major, minor = spec.io_device.split(":")
        row = {"major": int(major), "minor": int(minor), "rate": spec.io_bytes_per_s}
        resources["blockIO"] = {
            "throttleReadBpsDevice": [row],
            "throttleWriteBpsDevice": [row],
        }
    if mode is CgroupMode.V2:
        # A task out of memory ends whole, not by whichever process the kernel picks.
        resources["unified"] = {"memory.oom.group": "1"}


def plan(spec: SandboxSpec) -> dict[str, Any]:
    """What stands in ``spec.json``: an agent that starts again finds there who has which cores."""
    return {
        "cores": {"cpu_milli": spec.cpu_milli, "own": [list(core) for core in spec.own_cores]},
        "core_tag": spec.core_tag,
    }
