"""A NATS connection for bulk reading: many small messages cost one wake-up.

Two thousand nodes at 1 Hz would wake a reader two thousand times a second, and waking costs more
than the messages. This wire rests after each read, so it wakes at most once a rest and takes all
that came. Messages are that much later. Give telemetry a connection of its own: a reader that is
too slow is then cut off alone, and calls do not wait for its rests.
"""

from __future__ import annotations

import asyncio
from typing import Any

from gridlease_mesh.natswire import NatsWire
from gridlease_mesh.wire import Delivery, OnDelivery, Unsubscribe

REST_S = 0.01


class BulkWire(NatsWire):
    """As ``NatsWire``; whoever subscribes here hears in bursts. Make it with ``connect``."""

    def __init__(self) -> None:
        super().__init__()
        self.rest_s = REST_S
        self._resting = False

    def subscribe(self, subject: str, callback: OnDelivery, *, queue: str = "") -> Unsubscribe:
        def take(delivery: Delivery) -> None:
            if not self._resting:
                self._rest()
            callback(delivery)

        return super().subscribe(subject, take, queue=queue)

    def _rest(self) -> None:
        """Read no more for a moment; what was read already is still handed over."""
        transport = self._socket()
        if transport is None or transport.is_closing():
            return
        self._resting = True
        transport.pause_reading()
        asyncio.get_running_loop().call_later(self.rest_s, self._wake, transport)

    def _wake(self, transport: asyncio.ReadTransport) -> None:
        self._resting = False
        if not transport.is_closing():
            transport.resume_reading()

    def _socket(self) -> asyncio.ReadTransport | None:
        """asyncio's transport, below nats-py's; None where there is none to pause."""
        below: Any = self._client._transport  # noqa: SLF001 - nats-py has no name for it
        writer = getattr(below, "_io_writer", None)
        return writer.transport if writer is not None else None
