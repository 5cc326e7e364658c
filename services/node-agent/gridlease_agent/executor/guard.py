"""What a core that was taken over must not get: refusals before a sandbox starts."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from gridlease_kernel.faults import Forbidden, Precondition

from gridlease_agent.domain.warm import PREFIX
from gridlease_agent.executor import names
from gridlease_agent.executor.device_record import DeviceRecord
from gridlease_agent.ports import Artefact
from gridlease_agent.runtimes.spec import UID_BASE, UID_RANGE, SandboxSpec
from gridlease_agent.runtimes.states import Absent, Deadline, Running, Starting

_ENVIRONMENT = re.compile(r"[0-9a-f]{16}")
_MODULE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*){0,9}")
_SLOTS = 60_000


class Guarded:
    """Sandboxes as the core may ask for them: every path, uid and core is the executor's choice.

    What is not named here goes to the sandboxes as it is: their other verbs take names alone.
    """

    def __init__(
        self,
        sandboxes: Any,
        environments: Path,
        taken: Callable[[], set[int]],
        devices: DeviceRecord,
    ) -> None:
        self._sandboxes = sandboxes
        self._environments = environments
        self._taken = taken
        self._devices = devices
        self._lock = threading.Lock()
        self._starting: dict[int, str] = {}  # slot of users -> whose

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sandboxes, name)

    def start(self, lease_id: str, spec: SandboxSpec, deadline: Deadline) -> None:
        """Start it, if nothing in the spec reaches beyond its lease.

        Raises:
            Forbidden: BEYOND_ITS_LEASE, naming the field; DEVICE_NOT_FREE.
        """
        if lease_id.startswith(PREFIX):
            raise _beyond("lease_id", "is that of no lease")
        with self.owned(lease_id, spec):
            taken = self._devices.take(lease_id, spec.devices)
            try:
                self._sandboxes.start(lease_id, spec, deadline)
            except BaseException:
                if taken and isinstance(self._sandboxes.inspect(lease_id), Absent):
                    self._devices.put_back(taken)
                raise

    @contextlib.contextmanager
    def owned(self, name: str, spec: SandboxSpec) -> Iterator[None]:
        """Nothing in the spec reaches beyond what bears that name, and its users are its own."""
        if spec.lease_id != name:
            raise _beyond("lease_id", "names another lease")
        names.check(name)
        self.check(spec)
        slot = (spec.uid_base - UID_BASE) // UID_RANGE
        with self._lock:
            if slot in self._starting or slot in self._taken():
                raise _beyond("uid_base", "is another lease's")
            if name in self._starting.values():
                raise _beyond("lease_id", "is being started")
            self._starting[slot] = name
        try:
            yield
        finally:
            with self._lock:
                del self._starting[slot]

    def check(self, spec: SandboxSpec) -> None:
        """Every path, core and range of users is the executor's choice.

        Raises:
            Forbidden: BEYOND_ITS_LEASE, naming the field.
        """
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


class GuardedHeld:
    """Sandboxes made ahead, as the core may ask for them: none under a lease's name."""

    def __init__(self, held: Any, sandboxes: Guarded) -> None:
        self._held = held
        self._sandboxes = sandboxes

    def __getattr__(self, name: str) -> Any:
        return getattr(self._held, name)

    def make(
        self, warm_id: str, spec: SandboxSpec, deadline: Deadline, modules: tuple[str, ...]
    ) -> None:
        """See ``HeldSandboxes``.

        Raises:
            Forbidden: BEYOND_ITS_LEASE.
        """
        _ahead(warm_id)
        if not all(_MODULE.fullmatch(each) for each in modules):
            raise _beyond("modules", "are no names of modules")
        with self._sandboxes.owned(warm_id, spec):
            self._held.make(warm_id, spec, deadline, modules)

    def extend(self, warm_id: str, deadline: Deadline) -> None:
        """See ``HeldSandboxes``."""
        _ahead(warm_id)
        self._held.extend(warm_id, deadline)

    def release(
        self, warm_id: str, spec: SandboxSpec, commands: tuple[str, ...], deadline: Deadline
    ) -> None:
        """See ``HeldSandboxes``; its users stay those that it was made with."""
        _ahead(warm_id)
        names.check(spec.lease_id)
        if spec.lease_id.startswith(PREFIX):
            raise _beyond("lease_id", "is that of no lease")
        self._sandboxes.check(spec)
        if spec.devices or spec.network or spec.core_tag:
            raise _beyond("devices", "are given to no sandbox made ahead")
        self._held.release(warm_id, spec, commands, deadline)

    def drop(self, warm_id: str) -> bool:
        """See ``HeldSandboxes``."""
        _ahead(warm_id)
        gone: bool = self._held.drop(warm_id)
        return gone


def _ahead(warm_id: str) -> None:
    names.check(warm_id)
    if not warm_id.startswith(PREFIX):
        raise _beyond("warm_id", "is that of no sandbox made ahead")


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
