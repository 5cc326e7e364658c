"""Can a job's programs run on a chip of a node, by their needs and the node's driver?

Where a job says nothing of its software, anything may do. A job that cannot run on a node's driver
is never sent there, and is told which driver would do (``compat``).
"""

from __future__ import annotations

from gridlease_scheduler.domain.chips import Catalogue
from gridlease_scheduler.domain.job import Needs
from gridlease_scheduler.domain.node import Node

from .compat import check
from .verdict import Compatible, Host, Program, Verdict

_FINE = Compatible()


def verdict(needs: Needs, node: Node, chip: str, catalogue: Catalogue) -> Verdict:
    """Whether they can, and if not, why not and what would do."""
    software = needs.software
    if not software.toolkit or needs.accelerator is None:
        return _FINE
    version = {software.toolkit: software.version}
    program = Program(
        cuda=version.get("cuda", ""),
        sass=software.targets,
        cuda_compat=software.carries_compat,
        jetpack=version.get("jetpack", ""),
        rocm=version.get("rocm", ""),
    )
    drivers = dict(node.drivers)
    host = Host(
        node.architecture,
        driver=drivers.get("cuda", ""),
        l4t=drivers.get("l4t", ""),
        rocm=drivers.get("rocm", ""),
    )
    return check(program, host, catalogue.find(chip), catalogue.facts)


def suits(needs: Needs, node: Node, chip: str, catalogue: Catalogue) -> bool:
    """Can they?"""
    return isinstance(verdict(needs, node, chip, catalogue), Compatible)
