"""What a core that was taken over must not get: refusals before a sandbox starts."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from gridlease_kernel.faults import Forbidden, Precondition

from gridlease_agent.executor import names
from gridlease_agent.ports import Artefact
from gridlease_agent.runtimes.spec import UID_BASE, UID_RANGE, SandboxSpec
from gridlease_agent.runtimes.states import Deadline, Running, Starting

_ENVIRONMENT = re.compile(r"[0-9a-f]{16}")
_SLOTS = 60_000


class Guarded:
    """Sandboxes as the core may ask for them: every path, uid and core is the executor's choice.

    What is not named here goes to the sandboxes as it is: their other verbs take names alone.
    """

    def __init__(self, sandboxes: Any, environments: Path, taken: Callable[[], set[int]]) -> None:
        self._sandboxes = sandboxes
        self._environments = environments
        self._taken = taken
        self._lock = threading.Lock()
        self._starting: set[int] = set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sandboxes, name)

    def start(self, lease_id: str, spec: SandboxSpec, deadline: Deadline) -> None:
        """Start it, if nothing in the spec reaches beyond its lease.

        Raises:
            Forbidden: BEYOND_ITS_LEASE, naming the field.
        """
        if spec.lease_id != lease_id:
            raise _beyond("lease_id", "names another lease")
        names.check(lease_id)
        self._check(spec)
        slot = (spec.uid_base - UID_BASE) // UID_RANGE
        with self._lock:
            if slot in self._starting or slot in self._taken():
                raise _beyond("uid_base", "is another lease's")
            self._starting.add(slot)
        try:
            self._sandboxes.start(lease_id, spec, deadline)
        finally:
            with self._lock:
                self._starting.discard(slot)

    def _check(self, spec: SandboxSpec) -> None:
        slot, rest = divmod(spec.uid_base - UID_BASE, UID_RANGE)
        if rest or not 0 <= slot < _SLOTS:
            raise _beyond("uid_base", "is no lease's range of users")
        for field in ("mounts", "cpus", "own_cores", "io_device"):
            if getattr(spec, field, None):
                raise _beyond(field, "is the executor's to choose")
        if not spec.environment:
            return
        folder = Path(spec.environment)
        if folder.parent != self._environments or not _ENVIRONMENT.fullmatch(folder.name):
            raise _beyond("environment", "is no prepared environment of this node")
        if folder.is_symlink():
            raise _beyond("environment", "is a link")


class GuardedFiles:
    """The leases' files as the core may ask for them: none of a sandbox that still runs.

    A task that lives could exchange what root is just moving or deleting.
    """

    def __init__(self, files: Any, sandboxes: Any) -> None:
        self._files = files
        self._sandboxes = sandboxes

    def __getattr__(self, name: str) -> Any:
        return getattr(self._files, name)

    def keep(self, lease_id: str, outputs: Iterable[str]) -> list[Artefact]:
        """See ``LeaseFiles``.

        Raises:
            Precondition: SANDBOX_RUNNING.
        """
        self._over(lease_id)
        kept: list[Artefact] = self._files.keep(lease_id, outputs)
        return kept

    def discard(self, lease_id: str) -> None:
        """See ``LeaseFiles``.

        Raises:
            Precondition: SANDBOX_RUNNING.
        """
        self._over(lease_id)
        self._files.discard(lease_id)

    def _over(self, lease_id: str) -> None:
        live = isinstance(self._sandboxes.inspect(lease_id), Starting | Running)
        if live or self._sandboxes.alive([lease_id]):
            raise Precondition(
                f"Lease {lease_id} still runs here.",
                reason="SANDBOX_RUNNING",
                remedy="Stop it and wait for its end.",
            )


def _beyond(field: str, why: str) -> Forbidden:
    return Forbidden(f"The sandbox's {field} {why}.", reason="BEYOND_ITS_LEASE", field=field)
