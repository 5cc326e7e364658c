"""Keeps the table of cores, and writes it into the cgroups of running leases.

Who has which cores stands in each lease's ``spec.json``, so that an agent that starts again knows
it; the rest is computed.
"""

from __future__ import annotations

import ctypes
import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from gridlease_kernel.faults import Unreachable

from gridlease_agent.domain import cores
from gridlease_agent.domain.cores import Core, Held
from gridlease_agent.isolate import cgroups
from gridlease_agent.isolate.cgroups import CgroupMode

_LOG = logging.getLogger(__name__)
_PR_SCHED_CORE, _GET = 62, 0


def layout(root: Path = Path("/"), allowed: Iterable[int] | None = None) -> tuple[Core, ...]:
    """The cores of this host, each all of its threads; only those that are ours to give."""
    mine = set(os.sched_getaffinity(0) if allowed is None else allowed)
    found: dict[Core, None] = {}
    for cpu in sorted(mine):
        path = root / f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"
        try:
            siblings = cores.numbers(path.read_text("ascii"))
        except (OSError, ValueError):
            siblings = (cpu,)
        if set(siblings) <= mine:  # a core of which we have half is nobody's alone
            found[siblings] = None
    return tuple(found)


def core_scheduling() -> bool:
    """Whether the kernel can keep two tags off the threads of one core."""
    cookie = ctypes.c_ulong()
    libc = ctypes.CDLL(None, use_errno=True)
    answer: int = libc.prctl(_PR_SCHED_CORE, _GET, 0, 0, ctypes.byref(cookie))
    return answer == 0


class CoreTable:
    """One node's cores. Not for two threads at once."""

    def __init__(
        self, cores_of_host: tuple[Core, ...], leases: Path, root: Path = cgroups.ROOT
    ) -> None:
        """``leases``: the folders whose plans say which cgroup is whose."""
        self._layout = cores_of_host
        self._leases = leases
        self._root = root
        self._mode = cgroups.mode(root)
        self._holders: cores.Holders = {}
        self._written: dict[str, str] = {}

    def adopt(self, kept: Mapping[str, Mapping[str, Any]]) -> None:
        """Leases that hold cores already: lease -> the ``cores`` of its ``spec.json``."""
        self._holders = {
            lease_id: Held(int(one["cpu_milli"]), tuple(tuple(core) for core in one["own"]))
            for lease_id, one in kept.items()
        }

    def take(self, lease_id: str, cpu_milli: int, *, alone: bool) -> tuple[str, tuple[Core, ...]]:
        """The CPUs for a lease, as the kernel writes them, and which cores are its own.

        "" where nobody on this node has cores of his own: then no set is needed.

        Raises:
            Unreachable: NO_FREE_CORE; there may be one later.
        """
        after = cores.take(self._layout, self._holders, lease_id, cpu_milli, alone=alone)
        if after is None:
            raise Unreachable(
                "Not enough whole cores are free on this node now.",
                reason="NO_FREE_CORE",
                field="tenancy",
                remedy="Wait for a lease here to end, or ask for fewer CPUs or shared tenancy.",
            )
        self._holders = after
        self.settle()
        own = after[lease_id].cores
        return (self._cpus(lease_id) if self._divided() else ""), own

    def give(self, lease_id: str) -> None:
        """The lease is over; what it had is everybody's again."""
        self._holders = cores.given(self._holders, lease_id)
        self._written.pop(lease_id, None)
        self.settle()

    def settle(self) -> None:
        """Write every running lease's set where it is not what it should be."""
        if not self._divided() and not self._written:
            return
        for lease_id in self._holders:
            wanted = self._cpus(lease_id)
            if self._written.get(lease_id) == wanted:
                continue
            path = self._file(lease_id)
            if path is None:
                continue  # no plan yet: it will say the same
            try:
                path.write_text(wanted)
            except FileNotFoundError:
                continue  # not running yet: its plan says the same, or the next turn does
            except OSError as trouble:
                _LOG.error("%s: %s", path, trouble, extra={"lease": lease_id})
                continue
            self._written[lease_id] = wanted

    def _divided(self) -> bool:
        return any(held.cores for held in self._holders.values())

    def _cpus(self, lease_id: str) -> str:
        return cores.listed(cores.cpus(self._layout, self._holders, lease_id))

    def _file(self, lease_id: str) -> Path | None:
        name = cgroups.recorded(self._leases / lease_id)
        if not name:
            return None
        if self._mode is CgroupMode.V2:
            return self._root / name / "cpuset.cpus"
        return self._root / "cpuset" / name / "cpuset.cpus"
