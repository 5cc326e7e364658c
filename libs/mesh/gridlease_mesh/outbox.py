"""The relay of a transactional outbox: rows that were committed with a fact, told afterwards.

    fetch a batch of unsent rows (oldest first) → publish → flush → mark them sent

At least once, in order per room: a row is marked only after the broker has seen it, and a relay
that dies in between tells it again. Receivers drop what they know by the row's id.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from gridlease_kernel.faults import Fault

from gridlease_mesh import frames
from gridlease_mesh.bus import Bus

_LOG = logging.getLogger(__name__)


class Row(NamedTuple):
    """One unsent message: its id, ``<prefix>.``-less subject, body, and words beside it."""

    id: int
    subject: str
    payload: bytes
    headers: Mapping[str, str] = {}


class Unsent(Protocol):
    """What the relay reads of a row; ``Row`` is one, and the store's own rows are."""

    @property
    def id(self) -> int: ...

    @property
    def subject(self) -> str: ...

    @property
    def payload(self) -> bytes: ...

    @property
    def headers(self) -> Mapping[str, str]: ...


class Outbox(Protocol):
    """The table, as the relay sees it; the store's adapter talks to PostgreSQL."""

    async def unsent(self, limit: int) -> Sequence[Unsent]:
        """Up to ``limit`` unsent rows, oldest first."""
        ...

    async def mark_sent(self, ids: Sequence[int]) -> None:
        """These were told; idempotent."""
        ...


class Publisher(Protocol):
    """Who tells; a Bus is one."""

    def publish(self, subject: str, payload: bytes, *, headers: bytes = b"") -> None: ...

    async def flush(self, timeout_s: float = 5.0) -> None: ...


async def relay_once(outbox: Outbox, bus: Publisher, batch: int = 256) -> int:
    """Tell one batch; how many rows that was.

    Raises:
        WireDown: nothing of the batch is marked.
    """
    rows = await outbox.unsent(batch)
    if not rows:
        return 0
    for row in rows:
        bus.publish(row.subject, row.payload, headers=frames.encode_headers(row.headers.items()))
    await bus.flush()
    await outbox.mark_sent([row.id for row in rows])
    return len(rows)


class Relay:
    """Runs ``relay_once`` for ever: on a wake-up, and every ``poll_s`` in case one was lost."""

    def __init__(
        self, outbox: Outbox, bus: Bus | Publisher, *, poll_s: float = 1.0, batch: int = 256
    ) -> None:
        self._outbox = outbox
        self._bus = bus
        self._poll_s = poll_s
        self._batch = batch
        self._awake = asyncio.Event()

    def wake(self) -> None:
        """New rows may be there (NOTIFY, or our own commit)."""
        self._awake.set()

    async def run(self) -> None:
        """Relay until cancelled; trouble is logged and tried again at the next poll."""
        while True:
            self._awake.clear()
            try:
                while await relay_once(self._outbox, self._bus, self._batch) == self._batch:
                    pass
            except (Fault, OSError) as trouble:
                _LOG.warning("the outbox waits: %s", trouble)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._poll_s):
                    await self._awake.wait()
