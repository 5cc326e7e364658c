"""A durable consumer of the event feed: in order, at least once, and nothing blocks it for good.

Its owner applies an event only if it is newer than what it applied to that entity
(``Marks``, kept with the data it guards): the feed is told again after a lost ack, after a crash,
and from the start when the stream had to be built anew. A message that fails ``max_tries`` times
goes to the dead-letter stream, with the reason, and the next one has its turn.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from gridlease_kernel.faults import Fault, Unreachable

from gridlease_mesh import frames, subjects
from gridlease_mesh.bus import Bus
from gridlease_mesh.feed import ENTITY, MESSAGE_ID, SEQUENCE, FeedTerms
from gridlease_mesh.jetstream import JetStream, acknowledged
from gridlease_mesh.wire import Delivery

_LOG = logging.getLogger(__name__)
POISON: Final = "poison_event"  # of the bus's dead letters, which its metrics show
_BATCH: Final = 64
_EXPIRES_S: Final = 5.0
_PAUSE_S: Final = 0.5
_MAX_REASON: Final = 200


class Heard(NamedTuple):
    """An event as it came. ``tries``: deliveries up to and with this one."""

    topic: str
    entity: str
    sequence: int
    payload: bytes
    headers: Mapping[str, str]
    tries: int


class Marks:
    """The newest sequence applied to each entity. Pure bookkeeping; keep it with your data."""

    def __init__(self, applied: Mapping[str, int] | None = None) -> None:
        self.applied = dict(applied or {})

    def is_newer(self, entity: str, sequence: int) -> bool:
        """Whether an event is to be applied: newer than all that was applied to its entity."""
        return sequence > self.applied.get(entity, 0)

    def apply(self, entity: str, sequence: int) -> bool:
        """Note an event; whether it was newer, so that its effect is to happen."""
        newer = self.is_newer(entity, sequence)
        if newer:
            self.applied[entity] = sequence
        return newer


class Malformed(Exception):  # noqa: N818 - what came, not an error of ours
    """A message that no event feed has written."""


@dataclass(slots=True)
class Counts:
    """What a consumer has seen since its start, for metrics."""

    handled: int = 0
    failed: int = 0
    dead: int = 0
    reopened: int = 0


@dataclass(frozen=True, slots=True)
class ConsumerTerms:
    """How a consumer reads.

    ``ack_wait_s``: an event that is in hand longer is told again. ``topic``: dotted tokens,
    wildcards allowed. ``retry_s``: pause before the second try; it doubles.
    """

    topic: str = ">"
    max_tries: int = 5
    ack_wait_s: float = 30.0
    retry_s: float = 0.2


def decode(delivery: Delivery, prefix: str) -> Heard:
    """The event in a delivery.

    Raises:
        Malformed: it carries no entity or no sequence.
    """
    try:
        headers = dict(frames.decode_headers(delivery.headers).pairs)
        sequence = headers.get(SEQUENCE, "")
        if ENTITY not in headers or not sequence.isdecimal():
            raise Malformed("no entity or no sequence")
    except frames.BadFrame as error:
        raise Malformed(str(error)) from error
    topic = delivery.subject.removeprefix(f"{prefix}.events.")
    tries, _ = place_of(delivery.reply)
    return Heard(topic, headers[ENTITY], int(sequence), delivery.payload, headers, tries)


def place_of(ack: str) -> tuple[int, str]:
    """How often a message was delivered, and what tells it from all others, by its ack subject.

    Source: ADR-15: $JS.ACK.[<domain>.<account hash>.]<stream>.<consumer>.<delivered>.<stream
    sequence>.<consumer sequence>.<time>.<pending>[.<random>].
    """
    tokens = ack.split(".")
    at = 4 if len(tokens) == 9 else 6
    if len(tokens) < at + 4 or not tokens[at].isdecimal():
        return 1, ""
    return int(tokens[at]), f"{tokens[at + 1]}.{tokens[at + 3]}"


class Consumer:
    """Runs ``handle`` for each event, one at a time, in the feed's order."""

    def __init__(
        self,
        bus: Bus,
        name: str,
        handle: Callable[[Heard], Awaitable[None]],
        terms: FeedTerms,
        how: ConsumerTerms | None = None,
    ) -> None:
        """Make it; ``run`` reads.

        Args:
            name: of the durable consumer; instances that share it share the events.
            handle: applies one event; raising means that it could not.
        """
        self._bus = bus
        self._name = subjects.check_token(name, "name")
        self._handle = handle
        self._terms = terms
        self._how = how or ConsumerTerms()
        self.counts = Counts()

    async def run(self) -> None:
        """Until cancelled; comes back after anything that happens to the broker."""
        jetstream = JetStream(self._bus)
        quiet = False
        try:
            while True:
                try:
                    await self._open(jetstream)
                    quiet = False
                    await self._read(jetstream)
                except (Fault, OSError) as trouble:
                    word = _LOG.debug if quiet else _LOG.warning
                    word("consumer %s waits: %s", self._name, trouble)
                    quiet = True
                await asyncio.sleep(_PAUSE_S)
        finally:
            jetstream.close()

    def _config(self) -> dict[str, Any]:
        subject = f"{self._terms.prefix}.events.{self._how.topic}"
        return {
            "durable_name": self._name,
            "name": self._name,
            "deliver_policy": "all",
            "ack_policy": "explicit",
            "ack_wait": int(self._how.ack_wait_s * 1e9),
            "max_ack_pending": 1,  # in order: the next one comes when this one is done with
            "max_deliver": -1,  # counted here, so that none falls off in silence
            "filter_subject": subject,
            "replay_policy": "instant",
        }

    async def _open(self, jetstream: JetStream) -> None:
        stream = self._terms.stream
        config = {"stream_name": stream, "config": self._config()}
        await jetstream.api(f"CONSUMER.DURABLE.CREATE.{stream}.{self._name}", config)
        self.counts.reopened += 1

    async def _read(self, jetstream: JetStream) -> None:
        """Pull and handle until the broker says that something is amiss.

        Raises:
            Unreachable: the consumer is gone, or the broker.
        """
        while True:
            queue: asyncio.Queue[Delivery] = asyncio.Queue()
            stop = jetstream.pull(
                self._terms.stream, self._name, _BATCH, _EXPIRES_S, queue.put_nowait
            )
            try:
                await self._drain(jetstream, queue)
            finally:
                stop()

    async def _drain(self, jetstream: JetStream, queue: asyncio.Queue[Delivery]) -> None:
        """Handle one pull's messages, to its end."""
        got = 0
        while got < _BATCH:
            try:
                async with asyncio.timeout(_EXPIRES_S + 2.0):
                    delivery = await queue.get()
            except TimeoutError as error:
                raise _gone("it does not answer") from error
            if not delivery.reply:  # a status: the pull is over
                code = frames.decode_headers(delivery.headers).code
                if code in (404, 408):  # nothing came
                    return
                raise _gone(f"status {code}")
            got += 1
            await self._take(jetstream, delivery)

    async def _take(self, jetstream: JetStream, delivery: Delivery) -> None:
        how = self._how
        try:
            heard = decode(delivery, self._terms.prefix)
        except Malformed as malformed:
            await self._bury(jetstream, delivery, str(malformed))
            return
        if heard.tries > how.max_tries:  # it takes the process down each time, before it can fail
            await self._bury(jetstream, delivery, "given up: never acknowledged")
            return
        for turn in range(heard.tries, how.max_tries + 1):
            try:
                await self._handle(heard)
            except Exception as error:  # noqa: BLE001 - whatever it is, others must not wait
                self.counts.failed += 1
                if turn == how.max_tries:
                    _LOG.exception("an event cannot be handled", extra={"topic": heard.topic})
                    await self._bury(jetstream, delivery, f"{type(error).__name__}: {error}")
                    return
                jetstream.tell(delivery.reply, b"+WPI")  # still in hand
                pause_s = how.retry_s * 2 ** (turn - 1)
                await asyncio.sleep(min(pause_s, how.ack_wait_s / 3))
            else:
                self.counts.handled += 1
                jetstream.tell(delivery.reply, b"+ACK")
                return

    async def _bury(self, jetstream: JetStream, delivery: Delivery, reason: str) -> None:
        """Put a message where people look, then let go of it.

        Raises:
            Fault: it could not be put there: it is told again.
        """
        subject = f"{self._terms.prefix}.dead.{self._terms.stream}.{self._name}"
        _, place = place_of(delivery.reply)
        clean = reason.encode("ascii", "replace").decode().replace("\r", " ").replace("\n", " ")
        pairs = [
            (MESSAGE_ID, f"{self._name}.{place}"),  # buried once, whoever else buries it
            ("Gl-Dead-Subject", delivery.subject),
            ("Gl-Dead-Reason", clean[:_MAX_REASON]),
        ]
        answer = await jetstream.wait(jetstream.publish(subject, delivery.payload, pairs))
        acknowledged(subject, answer)
        self.counts.dead += 1
        self._bus.dead_letters.count(POISON)
        _LOG.error("an event went to the dead letters: %s", clean[:_MAX_REASON])
        jetstream.tell(delivery.reply, b"+TERM")


def _gone(what: str) -> Unreachable:
    return Unreachable(
        f"The consumer of the event feed is gone ({what}).",
        reason="CONSUMER_GONE",
        remedy="It is made again by itself.",
    )
