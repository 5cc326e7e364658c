"""What the door needs of the outside, so that tests may stand in for any of it."""

from __future__ import annotations

import datetime
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from gridlease_gateway.domain.keys import KeyRecord


@dataclass(frozen=True, slots=True)
class AuditRow:
    """One mutating or denied call."""

    method: str
    key_id: str
    role: str
    tenant: str
    project: str
    resource: str
    outcome: str
    peer: str
    trace_id: str


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key to keep; ``secret_sha256`` instead of the secret."""

    id: str
    secret_sha256: bytes
    role: str
    project: str | None
    display_name: str
    expire_time: datetime.datetime | None = None


class AccessStore(Protocol):
    """Tenants, projects and keys."""

    async def key(self, key_id: str) -> KeyRecord | None:
        """A key by its id."""
        ...

    async def keys(self, project: str | None) -> list[KeyRecord]:
        """A project's keys, newest first; None = all there are."""
        ...

    async def add_key(self, key: NewKey) -> KeyRecord:
        """Keep a new key."""
        ...

    async def revoke(self, key_id: str, project: str | None) -> KeyRecord | None:
        """End a key; None where the project (None = any) has no such key. Idempotent."""
        ...

    async def add_tenant(self, tenant: str, project: str) -> bool:
        """A tenant with its first project; False where either exists."""
        ...

    async def has_tenant(self, tenant: str) -> bool:
        """Whether there is such a tenant."""
        ...

    async def tenant_of(self, project: str) -> str | None:
        """The tenant of a project; None where there is none such."""
        ...


class AuditLog(Protocol):
    """Append only."""

    async def write(self, row: AuditRow) -> None:
        """Keep a row, durably.

        Raises:
            Unreachable: the database is away.
        """
        ...


class BundleIndex(Protocol):
    """Which project may name which bundle."""

    async def add(self, project: str, digest: str, size_bytes: int) -> None:
        """Let the project name it. Idempotent."""
        ...

    async def owns(self, project: str, digest: str) -> bool:
        """Whether the project uploaded it."""
        ...


class Upload(Protocol):
    """A bundle on its way in."""

    def write(self, piece: bytes) -> None:
        """Take the next piece.

        Raises:
            TooLarge: BUNDLE_TOO_LARGE.
        """
        ...

    async def keep(self) -> tuple[str, int]:
        """Check it and keep it under its digest; the digest and its size in bytes.

        Raises:
            Invalid: BUNDLE_NOT_TAR or BUNDLE_UNSAFE.
        """
        ...

    def drop(self) -> None:
        """Forget what was not kept; idempotent."""
        ...


class BundleFiles(Protocol):
    """The bundles' bytes, by digest."""

    def upload(self) -> Upload:
        """Begin a new one."""
        ...

    def read(self, digest: str) -> AsyncIterator[bytes]:
        """A bundle's bytes in pieces.

        Raises:
            Missing: BUNDLE_NOT_FOUND.
        """
        ...


class FirstStartStore(Protocol):
    """The mark that the first keys were made."""

    async def begin(self, tenant: str, project: str, keys: list[NewKey]) -> bool:
        """Make tenant, project and keys, all or none; False where that was done before."""
        ...

    async def credit_due(self) -> bool:
        """Whether billing has not yet taken the first credit."""
        ...

    async def credit_done(self) -> None:
        """Billing has taken it."""
        ...


@dataclass(frozen=True, slots=True)
class NewHook:
    """A webhook to keep."""

    id: str
    project: str
    url: str
    types: Sequence[str]
    secret: bytes


@dataclass(frozen=True, slots=True)
class Hook:
    """A webhook, and how far it has come."""

    id: str
    project: str
    tenant: str
    url: str
    types: tuple[str, ...]
    secret: bytes
    create_time: datetime.datetime
    event_after: int
    notice_after: int
    failures: int
    dead_count: int
    last_error: str
    old_secret: bytes | None = None  # signs, too, until its time is over


@dataclass(frozen=True, slots=True)
class Sent:
    """An event that a webhook is sent, by its place: ``room``'s event of that number."""

    room: str
    sequence: int

    @property
    def message_id(self) -> str:
        return f"{self.room}-{self.sequence}"


@dataclass(frozen=True, slots=True)
class Again:
    """An event to send again, and how often that failed."""

    sent: Sent
    failures: int


@dataclass(frozen=True, slots=True)
class Dead:
    """An event that was given up. ``id``: in the order of giving up; 0 = not written yet."""

    sent: Sent
    type: str
    tries: int
    last_error: str
    id: int = 0
    webhook: str = ""
    project: str = ""
    time: datetime.datetime | None = None
    taken_time: datetime.datetime | None = None


class WebhookStore(Protocol):
    """Webhooks; a claimed one is sent to by its claimer alone, for so long."""

    async def add(self, hook: NewHook, most: int) -> Hook | None:
        """The hook as kept; None where the project has ``most`` already."""
        ...

    async def of_project(self, project: str) -> list[Hook]: ...

    async def remove(self, hook_id: str, project: str) -> bool:
        """False where the project never had such a one. Idempotent."""
        ...

    async def claim(self, limit: int, for_s: float) -> list[Hook]: ...

    async def move(
        self, hook: Hook, *, dead: Dead | None = None, pause_s: float = 0.0, release: bool = False
    ) -> bool:
        """Keeps how far it has come; False where it was removed meanwhile."""
        ...

    async def one(self, hook_id: str, project: str) -> Hook | None:
        """By its id; ``project``: whose it must be, empty = anybody's."""
        ...

    async def renew(self, hook_id: str, secret: bytes, overlap_ms: int) -> datetime.datetime:
        """Gives it a new secret; until when the one of before signs beside it."""
        ...

    async def ask_again(self, hook_id: str, events: Sequence[Sent]) -> int:
        """Writes down what is to be sent again, each once; how many wait now."""
        ...

    async def due_again(self, hook_id: str, limit: int) -> list[Again]:
        """Those whose time has come, in the order of their rooms' numbers."""
        ...

    async def put_off(self, hook_id: str, again: Again, pause_s: float) -> None: ...

    async def done_again(self, hook_id: str, sent: Sent, dead: Dead | None) -> None:
        """It was taken, or it is given up once more."""
        ...

    async def dead(self, project: str, hook_id: str, before: int, limit: int) -> list[Dead]:
        """Newest first, before an id; empty names = of all."""
        ...


class Poster(Protocol):
    """Sends to strangers."""

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> None:
        """Returns once the other side has taken it.

        Raises:
            Invalid: WEBHOOK_URL_REFUSED.
            Unreachable: WEBHOOK_FAILED.
        """
        ...
