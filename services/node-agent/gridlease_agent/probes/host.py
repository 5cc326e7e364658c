"""Which host this is."""

from __future__ import annotations

import platform
from pathlib import Path

from gridlease_agent.isolate import cgroups
from gridlease_agent.probes.facts import HostFacts
from gridlease_agent.probes.reading import text


def probe(root: Path = Path("/")) -> HostFacts:
    """Name, kernel, boot, architecture and cgroup layout."""
    release = dict(
        line.split("=", 1) for line in text(root, "etc/os-release").splitlines() if "=" in line
    )
    return HostFacts(
        hostname=text(root, "proc/sys/kernel/hostname"),
        kernel=text(root, "proc/sys/kernel/osrelease"),
        boot_id=text(root, "proc/sys/kernel/random/boot_id"),
        arch=text(root, "proc/sys/kernel/arch") or platform.machine(),
        cgroup_mode=cgroups.mode(root / "sys/fs/cgroup").value,
        system=release.get("PRETTY_NAME", "").strip('"'),
    )
