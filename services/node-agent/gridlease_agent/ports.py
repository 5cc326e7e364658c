"""What the agent's use cases need of the world; ``bootstrap`` decides who answers."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from gridlease_mesh.telemetry_sample import Sample

from gridlease_agent.domain.lease import Answer, Report, Sighting
from gridlease_agent.domain.progress import TaskReport
from gridlease_agent.domain.spool import Clocks, Deadline, Spool, StopOrder
from gridlease_agent.domain.task import Ending, Task
from gridlease_agent.executor.codec import Handle


class Host(Protocol):
    """The clocks of this boot."""

    def now(self) -> Clocks: ...


@dataclass(frozen=True, slots=True)
class Recorded:
    """All that the spool file holds. ``devices``: those that it knows anything about."""

    spool: Spool
    tasks: Mapping[str, bytes]
    endings: Mapping[str, Ending]
    devices: frozenset[str]


class SpoolStore(Protocol):
    """The spool file. ``write`` returns once the difference is on disk, in one transaction."""

    def read(self) -> Recorded | None: ...
    def write(
        self,
        before: Spool | None,
        after: Spool,
        tasks: Mapping[str, bytes],
        endings: Mapping[str, Ending],
    ) -> None: ...
    def note_devices(self, devices: Iterable[str]) -> None: ...
    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Seen:
    """One lease as the scheduler is told of it."""

    sighting: Sighting
    running: bool
    ending: Ending
    report: TaskReport


@dataclass(frozen=True, slots=True)
class Preload:
    """What to have at hand: an image or an environment, and sandboxes of it for one tenant."""

    image: str = ""
    runtime: str = ""
    tenant: str = ""
    created: int = 0
    frozen: int = 0
    modules: tuple[str, ...] = ()
    cpu_milli: int = 1000
    memory_bytes: int = 512 << 20
    disk_bytes: int = 1 << 30


@dataclass(frozen=True, slots=True)
class Desired:
    """The scheduler's answer. ``tasks``: each lease to run, and the bytes that told of it.

    ``preload``: the most wanted first.
    """

    generation: int
    tasks: tuple[tuple[Task, bytes], ...]
    stop: tuple[StopOrder, ...]
    preload: tuple[Preload, ...] = ()


class Scheduler(Protocol):
    """SyncService. Both raise ``Fault``."""

    async def sync(
        self, spool: Spool, boot_id: str, seen: Iterable[Seen], devices: Iterable[str]
    ) -> Desired: ...
    def decode(self, lease: bytes) -> Task: ...


class Billing(Protocol):
    """SettlementService; raises ``Fault``."""

    async def settle(self, spool_id: str, reports: Iterable[Report]) -> tuple[Answer, ...]: ...


@dataclass(frozen=True, slots=True)
class KeptReport:
    """One telemetry report that waits. ``at_ms``: since its boot, which has a number here."""

    boot: int
    sequence: int
    at_ms: int
    payload: bytes


class TelemetryStore(Protocol):
    """Where telemetry waits for a connection; see ``adapters.telemetry_spool``."""

    @property
    def stream(self) -> int: ...
    @property
    def waiting(self) -> int: ...
    def sequence(self) -> int: ...
    def dropped_before(self, sequence: int) -> int: ...
    def put(self, sequence: int, at_ms: int, taken: Sample) -> None: ...
    def first(self, most: int, now_ms: int, wall_ms: int) -> list[KeptReport]: ...
    def told(self, batch: list[KeptReport]) -> None: ...


class SpanTeller(Protocol):
    """Tells of finished spans, at most once; never waits, never fails."""

    def record(
        self,
        name: str,
        traceparent: str,
        *,
        start_unix_ns: int,
        end_unix_ns: int,
        attributes: Mapping[str, str],
        error: str = "",
    ) -> None: ...


class Bundles(Protocol):
    """Bundles by digest.

    ``fetch`` raises ``Unreachable`` where trying again may help, and another ``Fault`` where not.
    """

    async def fetch(self, digest: str) -> Path: ...
    def unpack(self, archive: Path, folder: Path, limit_bytes: int) -> None: ...


@dataclass(frozen=True, slots=True)
class Artefact:
    """One kept output. ``sha256``: hex."""

    path: str
    size_bytes: int
    sha256: str


class Reports(Protocol):
    """What tasks tell of themselves; see ``adapters.report_folder``."""

    def make(self, lease_id: str) -> None: ...
    def read(self, lease_ids: Collection[str]) -> dict[str, TaskReport]: ...
    def last(self, lease_id: str) -> TaskReport: ...


class Files(Protocol):
    """The leases' files on this node; see ``adapters.lease_files``."""

    @property
    def reports(self) -> Reports: ...
    def prepare(self, lease_id: str, devices: Iterable[str]) -> Handle: ...
    def held(self, lease_id: str) -> tuple[str, ...]: ...
    def deadline(self, lease_id: str) -> Deadline | None: ...
    def folders(self) -> list[str]: ...
    def taken_slots(self) -> set[int]: ...
    def discard(self, lease_id: str) -> None: ...
    def keep(self, lease_id: str, outputs: Iterable[str]) -> list[Artefact]: ...
    def artefacts(self, lease_id: str) -> list[Artefact] | None: ...
    def open_artefact(self, lease_id: str, path: str) -> Handle: ...
    def open_log(self, lease_id: str) -> Handle | None: ...
    def known(self, lease_id: str) -> bool: ...
    def prune(self, spare: str = "", now_ns: int | None = None) -> list[str]: ...


@dataclass(frozen=True, slots=True)
class Prepared:
    """A prepared environment: a folder shown in the sandbox, and the variables that go with it."""

    folder: str
    env: tuple[tuple[str, str], ...]


class Environments(Protocol):
    """Prepared environments of this node, by name or by lock hash."""

    def resolve(self, name: str) -> Prepared: ...
    def names(self) -> list[str]: ...
