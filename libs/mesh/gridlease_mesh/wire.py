"""What the mesh asks of a broker connection: subjects, synchronous callbacks, nothing else.

``natswire.NatsWire`` is the real one, ``publicwire.PublicWire`` its slow stand-in, and
``loopback.LoopbackWire`` needs no broker. Callbacks run on
the event loop, in order per sender; publishing never waits (bounded by the wire's own buffer).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from gridlease_kernel.faults import Unreachable

from gridlease_mesh.deadletters import DeadLetters


class Delivery(NamedTuple):
    """One message as it came: ``headers`` is the raw block, empty where there is none."""

    subject: str
    reply: str
    headers: bytes
    payload: bytes


OnDelivery = Callable[[Delivery], None]
Unsubscribe = Callable[[], None]


class WireDown(Unreachable):
    """There is no connection to the broker now."""

    def __init__(self, message: str = "The connection to NATS is down.") -> None:
        super().__init__(
            message,
            reason="MESH_DOWN",
            remedy="It reconnects by itself; try again soon.",
        )


class Listener:
    """What a wire tells about itself; override what matters. Never raises."""

    def connected(self) -> None:
        """The connection is up, at first or again: resync now."""

    def disconnected(self) -> None:
        """The connection went away: what was in flight may be lost."""

    def refused(self, subject: str) -> None:
        """The broker did not let us publish to ``subject`` (given in lower case)."""


class Wire(Protocol):
    """A connection that reconnects by itself for ever."""

    dead_letters: DeadLetters

    @property
    def connected(self) -> bool:
        """Whether a message published now has a way out."""
        ...

    @property
    def max_payload_bytes(self) -> int:
        """The largest message (headers and payload) that the broker takes."""
        ...

    @property
    def congested(self) -> bool:
        """Whether so much waits to go out that bulk senders should ``flush`` first."""
        ...

    def publish(
        self, subject: str, payload: bytes, *, reply: str = "", headers: bytes = b""
    ) -> None:
        """Send a message, at most once.

        Raises:
            WireDown: no connection, or its buffer is full.
        """
        ...

    def subscribe(self, subject: str, callback: OnDelivery, *, queue: str = "") -> Unsubscribe:
        """Hear a subject, for as long as the wire lives, across reconnects.

        After the unsubscribe, what is on its way may still come until a ``flush`` returns.
        """
        ...

    async def flush(self, timeout_s: float = 5.0) -> None:
        """Wait until the broker has seen all that went before.

        Raises:
            WireDown: it did not answer in time.
        """
        ...

    def add_listener(self, listener: Listener) -> None:
        """Tell ``listener`` of what happens from now on."""
        ...

    def remove_listener(self, listener: Listener) -> None:
        """Stop telling it; unknown is fine."""
        ...

    async def close(self) -> None:
        """Let go; idempotent."""
        ...
