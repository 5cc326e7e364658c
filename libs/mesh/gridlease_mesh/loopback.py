"""The mesh without a broker: for tests and the simulator.

Semantics of core NATS inside one event loop: wildcards, queue groups, no-responders, order per
broker, at most once. A ``tap`` may drop, double or delay deliveries.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from gridlease_mesh import subjects
from gridlease_mesh.deadletters import CALLBACK_FAILED, DeadLetters
from gridlease_mesh.wire import Delivery, Listener, OnDelivery, Unsubscribe, WireDown

_LOG = logging.getLogger(__name__)

Tap = Callable[[Delivery], Iterable[Delivery]]


@dataclass(slots=True, eq=False)
class _Subscription:
    wire: LoopbackWire
    subject: str
    queue: str
    callback: OnDelivery


@dataclass(eq=False)
class LoopbackBroker:
    """Routes between the wires of one process."""

    max_payload_bytes: int = 1 << 20
    tap: Tap | None = None
    _subscriptions: list[_Subscription] = field(default_factory=list)
    _turn: itertools.count[int] = field(default_factory=itertools.count)

    def wire(self) -> LoopbackWire:
        """A new connection."""
        return LoopbackWire(self)

    def add(self, subscription: _Subscription) -> None:
        self._subscriptions.append(subscription)

    def remove(self, subscription: _Subscription) -> None:
        if subscription in self._subscriptions:
            self._subscriptions.remove(subscription)

    def route(self, delivery: Delivery) -> None:
        """Pass a message on, through the tap where there is one."""
        for passed in self.tap(delivery) if self.tap else (delivery,):
            asyncio.get_running_loop().call_soon(self._deliver, passed)

    def _deliver(self, delivery: Delivery) -> None:
        hearers = [
            s
            for s in self._subscriptions
            if s.wire.connected and subjects.matches(s.subject, delivery.subject)
        ]
        if not hearers and delivery.reply:
            self._deliver(Delivery(delivery.reply, "", b"NATS/1.0 503\r\n\r\n", b""))
            return
        groups: dict[tuple[str, str], list[_Subscription]] = {}
        for hearer in hearers:
            if hearer.queue:
                groups.setdefault((hearer.queue, hearer.subject), []).append(hearer)
            else:
                self._hand_over(hearer, delivery)
        for members in groups.values():
            self._hand_over(members[next(self._turn) % len(members)], delivery)

    @staticmethod
    def _hand_over(hearer: _Subscription, delivery: Delivery) -> None:
        try:
            hearer.callback(delivery)
        except Exception:  # noqa: BLE001 - as on the real wire: one callback's bug is its own
            hearer.wire.dead_letters.count(CALLBACK_FAILED)
            _LOG.exception("a mesh callback failed", extra={"subject": delivery.subject})


class LoopbackWire:
    """One connection to a LoopbackBroker."""

    def __init__(self, broker: LoopbackBroker) -> None:
        self._broker = broker
        self.dead_letters = DeadLetters()
        self._listeners: list[Listener] = []
        self._connected = True
        self._closed = False

    @property
    def connected(self) -> bool:
        return self._connected

    @property
    def max_payload_bytes(self) -> int:
        return self._broker.max_payload_bytes

    @property
    def congested(self) -> bool:
        return False

    def publish(
        self, subject: str, payload: bytes, *, reply: str = "", headers: bytes = b""
    ) -> None:
        if not self._connected:
            raise WireDown
        assert len(payload) + len(headers) <= self.max_payload_bytes, len(payload)
        self._broker.route(Delivery(subject, reply, headers, payload))

    def subscribe(self, subject: str, callback: OnDelivery, *, queue: str = "") -> Unsubscribe:
        subscription = _Subscription(self, subject, queue, callback)
        self._broker.add(subscription)
        return lambda: self._broker.remove(subscription)

    async def flush(self, timeout_s: float = 5.0) -> None:
        del timeout_s
        if not self._connected:
            raise WireDown
        await asyncio.sleep(0)

    def add_listener(self, listener: Listener) -> None:
        self._listeners.append(listener)

    def remove_listener(self, listener: Listener) -> None:
        if listener in self._listeners:
            self._listeners.remove(listener)

    def disconnect(self) -> None:
        """Cut the connection, as a test or the simulator wishes."""
        if self._connected:
            self._connected = False
            for listener in list(self._listeners):
                listener.disconnected()

    def reconnect(self) -> None:
        """Heal the connection."""
        if not self._connected and not self._closed:
            self._connected = True
            for listener in list(self._listeners):
                listener.connected()

    async def close(self) -> None:
        self._closed = True
        self.disconnect()
        self._listeners.clear()
