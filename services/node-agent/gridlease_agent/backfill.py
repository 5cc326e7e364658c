"""Tells what the node measures; what cannot be told is kept, and told on return, in order.

A report that went into a connection which was dying may not have arrived. So what was sent is
remembered until the broker has confirmed all before it, and is told again where it did not: the
reader knows each sample by its stream and sequence, and takes it once.
"""

from __future__ import annotations

import collections
import logging
from collections.abc import Callable

from gridlease_kernel.faults import Fault
from gridlease_mesh.bus import Bus
from gridlease_mesh.telemetry import key_subject, report_subject
from gridlease_mesh.telemetry_codec import MAX_REPORT_BYTES, Encoder
from gridlease_mesh.telemetry_sample import Sample
from gridlease_mesh.wire import Listener, WireDown

from gridlease_agent.book import Bell
from gridlease_agent.ports import TelemetryStore

_LOG = logging.getLogger(__name__)
_CONFIRM_S = 30.0
_FLUSH_S = 5.0
_BATCH = 64
_UNCONFIRMED = 120  # samples: two minutes at 1 Hz


class Backfill(Listener):
    """A node's telemetry: never waits, never grows beyond the spool's quota."""

    def __init__(
        self,
        bus: Bus,
        spool: TelemetryStore,
        boot_ms: Callable[[], int],
        wall_ms: Callable[[], int],
    ) -> None:
        """Ready at once.

        Args:
            bus: of a node.
            spool: where samples wait; what an earlier agent left there is told first.
            boot_ms: milliseconds since boot, suspend included.
            wall_ms: Unix time.
        """
        assert bus.node_id is not None, "nodes report"
        self.sent = 0
        self._bus = bus
        self._wire = bus.wire
        self._spool = spool
        self._boot_ms, self._wall_ms = boot_ms, wall_ms
        self._subject = report_subject(bus.prefix, bus.node_id)
        self._encoder = Encoder(spool.stream)
        self._unconfirmed: collections.deque[tuple[int, int, Sample]] = collections.deque(
            maxlen=_UNCONFIRMED
        )
        self._live = False
        self._bell = Bell()
        self._unsubscribe = self._wire.subscribe(
            key_subject(bus.prefix, bus.node_id), lambda _delivery: self._encoder.ask_key()
        )
        self._wire.add_listener(self)
        self._bell.ring()

    def offer(self, taken: Sample) -> None:
        """Send a sample, or keep it."""
        sequence, at_ms = self._spool.sequence(), self._boot_ms()
        if self._live and self._wire.connected and not self._wire.congested:
            dropped = self._spool.dropped_before(sequence)
            payload = self._encoder.encode(taken, sequence=sequence, dropped=dropped)
            if self._publish(payload):
                self._unconfirmed.append((sequence, at_ms, taken))
                return
        self._keep()
        self._spool.put(sequence, at_ms, taken)
        self._bell.ring()

    def disconnected(self) -> None:
        self._keep()

    def connected(self) -> None:
        self._bell.ring()

    def close(self) -> None:
        """Stop; what is not confirmed is kept."""
        self._unsubscribe()
        self._wire.remove_listener(self)
        self._keep()

    async def run(self) -> None:
        """Until cancelled: tells what waits, and has confirmed what was told."""
        while True:
            await self._bell.wait(_CONFIRM_S)
            if self._wire.connected:
                try:
                    await self.catch_up()
                except Fault as fault:
                    _LOG.debug("telemetry waits: %s", fault)

    async def catch_up(self) -> None:
        """All that waits, the oldest first; then live again.

        Raises:
            Fault: the connection broke; what was not confirmed still waits.
        """
        if self._live:
            await self._confirm()
            return
        while batch := self._spool.first(_BATCH, self._boot_ms(), self._wall_ms()):
            for one in batch:
                if not self._publish(one.payload):
                    raise WireDown
            await self._wire.flush(_FLUSH_S)
            self._spool.told(batch)
        self._encoder.ask_key()
        self._live = True

    async def _confirm(self) -> None:
        count = len(self._unconfirmed)
        last = self._unconfirmed[-1][0] if count else 0
        await self._wire.flush(_FLUSH_S)
        while self._unconfirmed and self._unconfirmed[0][0] <= last:
            self._unconfirmed.popleft()

    def _publish(self, payload: bytes) -> bool:
        if len(payload) > min(MAX_REPORT_BYTES, self._wire.max_payload_bytes):
            _LOG.warning("a report of %d bytes is too large to send", len(payload))
            self._encoder.ask_key()
            return True  # nobody could ever take it
        try:
            self._wire.publish(self._subject, payload)
        except WireDown:
            return False
        self.sent += 1
        return True

    def _keep(self) -> None:
        """From now on samples wait; those that may not have arrived, first."""
        self._live = False
        while self._unconfirmed:
            self._spool.put(*self._unconfirmed.popleft())
