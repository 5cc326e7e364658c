"""The telemetry channel: a node tells what it measures, once and at most once.

    sender = TelemetrySender(bus)                    # on the node
    sender.offer(sample(time_unix_ms=…, identity=…, devices=…))
    reader = TelemetryReader(bus, on_report)         # in a service

Reports go by core publish on ``<prefix>.tel.<node>.report``. The sender keeps a bounded history
while it cannot send, drops the oldest beyond it and tells how many. The reader tells what was
lost from what was dropped, and asks for a key report on ``<prefix>.node.<node>._telemetry.key``
where it needs one. Nothing of money depends on any of it.
"""

from __future__ import annotations

import collections
import logging
import secrets
from collections.abc import Callable

from gridlease_mesh.bus import Bus
from gridlease_mesh.deadletters import MALFORMED
from gridlease_mesh.telemetry_codec import KEY_EVERY, MAX_REPORT_BYTES, Counts, Decoder, Encoder
from gridlease_mesh.telemetry_report import BadReport, Report
from gridlease_mesh.telemetry_sample import Sample
from gridlease_mesh.wire import Delivery, Listener, WireDown

_LOG = logging.getLogger(__name__)
_HISTORY = 120  # samples: two minutes at 1 Hz
_MAX_NODES = 50_000
_ASK_EVERY = 8  # keyless reports between two asks


def report_subject(prefix: str, node_id: str) -> str:
    """Where a node's reports go; ``*`` for those of all."""
    return f"{prefix}.tel.{node_id}.report"


def key_subject(prefix: str, node_id: str) -> str:
    """Where a node hears that a reader needs a key report."""
    return f"{prefix}.node.{node_id}._telemetry.key"


class TelemetrySender(Listener):
    """A node's mouth: never waits, never grows beyond its history."""

    def __init__(
        self,
        bus: Bus,
        *,
        stream: int | None = None,
        history: int = _HISTORY,
        key_every: int = KEY_EVERY,
    ) -> None:
        """Ready at once.

        Args:
            bus: of a node.
            stream: names this sender's life; random where not given.
            history: samples kept while they cannot go out.
            key_every: reports from one key report to the next.
        """
        assert bus.node_id is not None, "nodes report"
        assert history > 0, history
        self.dropped = 0
        self.sent = 0
        self._wire = bus.wire
        self._subject = report_subject(bus.prefix, bus.node_id)
        self._history = history
        self._waiting: collections.deque[tuple[int, Sample]] = collections.deque()
        self._sequence = 0
        self._encoder = Encoder(
            secrets.randbits(63) if stream is None else stream, key_every=key_every
        )
        self._unsubscribe = self._wire.subscribe(
            key_subject(bus.prefix, bus.node_id), lambda _delivery: self._encoder.ask_key()
        )
        self._wire.add_listener(self)

    @property
    def waiting(self) -> int:
        """Samples that have not gone out yet."""
        return len(self._waiting)

    def offer(self, taken: Sample) -> None:
        """Send a sample, or keep it until the connection is back; the oldest gives way."""
        self._sequence += 1
        self._waiting.append((self._sequence, taken))
        if len(self._waiting) > self._history:
            self._drop()
        self._send()

    def connected(self) -> None:
        self._encoder.ask_key()
        self._send()

    def close(self) -> None:
        """Stop; what waits is given up."""
        self._unsubscribe()
        self._wire.remove_listener(self)
        self._waiting.clear()

    def _drop(self) -> None:
        self._waiting.popleft()
        self.dropped += 1

    def _send(self) -> None:
        """Send what waits, as far as the wire takes it."""
        while self._waiting and self._wire.connected and not self._wire.congested:
            sequence, taken = self._waiting[0]
            payload = self._encoder.encode(taken, sequence=sequence, dropped=self.dropped)
            if len(payload) > min(MAX_REPORT_BYTES, self._wire.max_payload_bytes):
                _LOG.warning("a report of %d bytes is too large to send", len(payload))
                self._encoder.ask_key()
                self._drop()
                continue
            try:
                self._wire.publish(self._subject, payload)
            except WireDown:
                self._encoder.ask_key()
                return
            self._waiting.popleft()
            self.sent += 1


class TelemetryReader:
    """A service's ear for all nodes. It keeps one key report of each, and counts."""

    def __init__(
        self,
        bus: Bus,
        on_report: Callable[[Report], None],
        *,
        max_nodes: int = _MAX_NODES,
    ) -> None:
        """Hear from now on; every reader hears every node.

        Args:
            on_report: is called for each report in order; it must not wait.
            max_nodes: beyond it the node that was silent longest is forgotten.
        """
        assert max_nodes > 0, max_nodes
        self.counts = Counts()  # of nodes forgotten
        self._wire = bus.wire
        self._prefix = bus.prefix
        self._dead_letters = bus.dead_letters
        self._skip = len(f"{bus.prefix}.tel.")
        self._on_report = on_report
        self._max_nodes = max_nodes
        self._nodes: collections.OrderedDict[str, Decoder] = collections.OrderedDict()
        self._unsubscribe = self._wire.subscribe(report_subject(bus.prefix, "*"), self._on_delivery)

    @property
    def nodes(self) -> tuple[str, ...]:
        """The nodes kept in memory, the one silent longest first."""
        return tuple(self._nodes)

    def counts_of(self, node_id: str) -> Counts:
        """What became of one node's reports."""
        decoder = self._nodes.get(node_id)
        return decoder.counts if decoder else Counts()

    def total(self) -> Counts:
        """What became of all reports, of forgotten nodes too."""
        total = Counts()
        total.add(self.counts)
        for decoder in self._nodes.values():
            total.add(decoder.counts)
        return total

    def close(self) -> None:
        """Hear no more."""
        self._unsubscribe()

    def _on_delivery(self, delivery: Delivery) -> None:
        node = delivery.subject[self._skip : -len(".report")]
        decoder = self._nodes.get(node)
        if decoder is None:
            decoder = self._remember(node)
        else:
            self._nodes.move_to_end(node)
        try:
            report = decoder.decode(delivery.payload)
        except BadReport as bad:
            self._dead_letters.count(MALFORMED)
            _LOG.debug("no report from %s: %s", node, bad)
            return
        if report is not None:
            self._on_report(report)
        elif decoder.wants_key and decoder.counts.keyless % _ASK_EVERY == 1:
            self._ask(node)

    def _remember(self, node: str) -> Decoder:
        if len(self._nodes) >= self._max_nodes:
            _, forgotten = self._nodes.popitem(last=False)
            self.counts.add(forgotten.counts)
        decoder = self._nodes[node] = Decoder(node)
        return decoder

    def _ask(self, node: str) -> None:
        try:
            self._wire.publish(key_subject(self._prefix, node), b"")
        except WireDown:
            _LOG.debug("no way to ask %s for a key report now", node)
