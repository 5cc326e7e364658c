"""The disk that holds the node's state."""

from __future__ import annotations

import os
from pathlib import Path

from gridlease_agent.probes.facts import DiskFacts


def probe(root: Path = Path("/")) -> DiskFacts:
    """Size and what an unprivileged writer may still use, at ``root`` (the state folder)."""
    facts = os.statvfs(root)
    return DiskFacts(str(root), facts.f_blocks * facts.f_frsize, facts.f_bavail * facts.f_frsize)
