"""The event feed on JetStream: a bounded copy of what a room's database says has happened.

    events committed in PostgreSQL, in order → stream EVENTS → durable consumers (``consumer.py``)

The copy knows how far it goes: its last message carries the event's sequence, and the next one
is stored only right after that one. So two shippers cannot double an event, a broker that lost
its tail gets that tail again, and a stream that is gone, or that belongs to another database, is
built anew from what the database keeps. Nothing here is the truth.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Protocol

from gridlease_kernel.faults import Fault

from gridlease_mesh import frames, subjects
from gridlease_mesh.bus import Bus
from gridlease_mesh.jetstream import (
    MESSAGE_NOT_FOUND,
    STREAM_NOT_FOUND,
    JetStream,
    Refused,
    acknowledged,
)
from gridlease_mesh.permissions import stream_name
from gridlease_mesh.wire import Listener

_LOG = logging.getLogger(__name__)
_PAGE: Final = 256
_STRANGERS: Final = 64
_PAUSE_S: Final = 0.5
_LAST_PAUSE_S: Final = 3.0
_ANSWER_S: Final = 3.0

MESSAGE_ID: Final = "Nats-Msg-Id"
EXPECTED: Final = "Nats-Expected-Last-Sequence"
ENTITY: Final = "Gl-Entity"
SEQUENCE: Final = "Gl-Sequence"
_OUR_HEADERS: Final = ("nats-", "gl-")


@dataclass(frozen=True, slots=True)
class FeedTerms:
    """How large the feed is and where it stands.

    ``replicas``: 1 on one broker, 3 in a cluster of three. ``check_s``: how long a lost stream
    stays unnoticed at most where no reconnect tells of it.
    """

    prefix: str = subjects.DEFAULT_PREFIX
    replicas: int = 1
    keep_s: int = 7 * 24 * 3600
    keep_messages: int = 200_000
    max_message_bytes: int = 64 << 10
    check_s: float = 5.0

    @property
    def stream(self) -> str:
        """The name of the stream: EVENTS, where the prefix is the usual one."""
        return stream_name("EVENTS", self.prefix)

    @property
    def dead_stream(self) -> str:
        return stream_name("DEAD", self.prefix)

    def config(self) -> dict[str, Any]:
        """What JetStream is asked for. Source: JetStream API, StreamConfig."""
        return _limited(
            self.stream,
            f"{self.prefix}.events.>",
            self,
            max_age=self.keep_s * 1_000_000_000,
            max_msgs=self.keep_messages,
        )

    def dead_config(self) -> dict[str, Any]:
        """The stream of messages that nobody could handle."""
        month_ns = 30 * 24 * 3600 * 1_000_000_000
        return _limited(
            self.dead_stream, f"{self.prefix}.dead.>", self, max_age=month_ns, max_msgs=10_000
        )


def _limited(name: str, subject: str, terms: FeedTerms, **limits: int) -> dict[str, Any]:
    return {
        "name": name,
        "subjects": [subject],
        "retention": "limits",
        "discard": "old",
        "storage": "file",
        "num_replicas": terms.replicas,
        "max_msg_size": terms.max_message_bytes,
        "duplicate_window": 120 * 1_000_000_000,
        "allow_direct": False,
        **limits,
    }


class Told(NamedTuple):
    """One event as the feed carries it; ``created_us``: since 1970, tells databases apart."""

    sequence: int
    created_us: int
    topic: str
    entity: str
    payload: bytes
    headers: Mapping[str, str] = {}


class Cursor(NamedTuple):
    """How far a stream goes: the event of its last message, and that message's own number."""

    sequence: int
    created_us: int
    last: int


class History(Protocol):
    """The database's events, as the feed sees them."""

    async def after(self, sequence: int, limit: int) -> Sequence[Told]:
        """In order, none left out: what an open transaction may precede is not shown yet."""
        ...

    async def start(self, keep_s: int, keep_messages: int) -> int:
        """The sequence right before the oldest event that is still to be told."""
        ...

    async def knows(self, sequence: int, created_us: int) -> bool:
        """Whether this very event is one of ours."""
        ...


def message_id(room: str, told: Told) -> str:
    """The same for each telling of one event, and never that of another database's."""
    return f"{room}.{told.sequence}.{told.created_us}"


def parse_message_id(text: str) -> tuple[int, int] | None:
    """(sequence, created_us) of an id; None where it is not ours."""
    _, _, rest = text.partition(".")
    sequence, dot, created = rest.partition(".")
    if not (dot and sequence.isdecimal() and created.isdecimal()):
        return None
    return int(sequence), int(created)


def headers_of(room: str, told: Told, after: int) -> list[tuple[str, str]]:
    """What stands above an event's payload; the event's own headers go along, but for ours."""
    pairs = [
        (MESSAGE_ID, message_id(room, told)),
        (EXPECTED, str(after)),
        (ENTITY, told.entity),
        (SEQUENCE, str(told.sequence)),
    ]
    own = ((k, v) for k, v in told.headers.items() if not k.lower().startswith(_OUR_HEADERS))
    return [*pairs, *((key, value) for key, value in own if value.isascii())]


@dataclass(slots=True)
class Counts:
    """What the feed has done since the start."""

    told: int = 0
    rebuilt: int = 0


@dataclass(slots=True)
class _State:
    reopen: bool = True
    made: bool = False
    checked: float = 0.0
    pause_s: float = _PAUSE_S
    quiet: bool = False
    counts: Counts = field(default_factory=Counts)


class Feed(Listener):
    """Keeps the stream as far as the database. One of a room's processes should run it."""

    def __init__(self, bus: Bus, room: str, history: History, terms: FeedTerms) -> None:
        self._bus = bus
        self._room = subjects.check_token(room, "room")
        self._history = history
        self._terms = terms
        self._state = _State()
        self._wake = asyncio.Event()
        self._cursor = Cursor(0, 0, 0)

    @property
    def counts(self) -> Counts:
        return self._state.counts

    @property
    def cursor(self) -> Cursor:
        """How far the stream went when last looked at."""
        return self._cursor

    def wake(self) -> None:
        """New events may be there."""
        self._wake.set()

    def connected(self) -> None:
        self._state.reopen = True  # the broker may have lost what it had
        self.wake()

    async def run(self) -> None:
        """Until cancelled; trouble is logged once and tried again."""
        self._bus.wire.add_listener(self)
        jetstream = JetStream(self._bus, timeout_s=_ANSWER_S)
        try:
            while True:
                await self._wait(await self._turn(jetstream))
        finally:
            self._bus.wire.remove_listener(self)
            jetstream.close()

    async def _turn(self, jetstream: JetStream) -> float:
        """Bring the stream up to date; how long to wait before the next look, in seconds."""
        state, now = self._state, asyncio.get_running_loop().time()
        try:
            if state.reopen or now - state.checked >= self._terms.check_s:
                await self._open(jetstream)
                state.reopen, state.checked = False, now
            while await self._ship(jetstream):
                pass
        except (Fault, OSError) as trouble:
            (_LOG.debug if state.quiet else _LOG.warning)("the event feed waits: %s", trouble)
            state.quiet, state.reopen = True, True
            pause_s, state.pause_s = state.pause_s, min(_LAST_PAUSE_S, state.pause_s * 2)
            return pause_s
        if state.quiet:
            _LOG.info("the event feed goes on", extra={"sequence": self._cursor.sequence})
        state.quiet, state.pause_s = False, _PAUSE_S
        return self._terms.check_s

    async def _wait(self, pause_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause_s):
                await self._wake.wait()
        self._wake.clear()

    async def _open(self, jetstream: JetStream) -> None:
        """Find out how far the stream goes; make it, or make it anew, where need be."""
        found = await self._found(jetstream)
        if found.sequence and not await self._history.knows(found.sequence, found.created_us):
            _LOG.warning("the event feed is another database's and is built anew")
            await jetstream.api(f"STREAM.DELETE.{self._terms.stream}")
            await jetstream.ensure_stream(self._terms.config())
            found = Cursor(0, 0, 0)
        if not found.sequence:
            start = await self._history.start(self._terms.keep_s, self._terms.keep_messages)
            found = found._replace(sequence=start)
            self._state.counts.rebuilt += 1
        self._cursor = found

    async def _found(self, jetstream: JetStream) -> Cursor:
        """How far the stream goes. It is made only where it is missing or new to us: making asks
        the leader of the whole cluster, who may have died with the stream's own."""
        if self._state.made:
            try:
                return await read_cursor(jetstream, self._terms.stream)
            except Refused as refused:
                if refused.err_code != STREAM_NOT_FOUND:
                    raise
        await jetstream.ensure_stream(self._terms.config())
        await jetstream.ensure_stream(self._terms.dead_config())
        self._state.made = True
        return await read_cursor(jetstream, self._terms.stream)

    async def _ship(self, jetstream: JetStream) -> bool:
        """Tell one page; whether there may be more.

        Raises:
            Fault: the stream may have part of it: look how far it goes.
        """
        page = await self._history.after(self._cursor.sequence, _PAGE)
        last = self._cursor.last
        answers = [
            jetstream.publish(
                f"{self._terms.prefix}.events.{told.topic}",
                told.payload,
                headers_of(self._room, told, last + index),
            )
            for index, told in enumerate(page)
        ]
        for told, answer in zip(page, answers, strict=True):
            last = acknowledged(self._terms.stream, await jetstream.wait(answer))
            self._cursor = Cursor(told.sequence, told.created_us, last)
            self._state.counts.told += 1
        return len(page) == _PAGE


async def read_cursor(jetstream: JetStream, stream: str) -> Cursor:
    """How far a stream goes; sequence 0 where it holds nothing of ours.

    Raises:
        Refused, Unreachable: see ``JetStream.api``.
    """
    state = (await jetstream.api(f"STREAM.INFO.{stream}"))["state"]
    last: int = state["last_seq"]
    # Beside the last message there may be a few that no feed wrote.
    for number in range(last, max(state["first_seq"], last - _STRANGERS, 1) - 1, -1):
        try:
            got = await jetstream.api(f"STREAM.MSG.GET.{stream}", {"seq": number})
        except Refused as refused:
            if refused.err_code != MESSAGE_NOT_FOUND:
                raise
            continue
        known = _id_in(base64.b64decode(got["message"].get("hdrs", "")))
        if known is not None:
            return Cursor(*known, last)
    return Cursor(0, 0, last)


def _id_in(raw: bytes) -> tuple[int, int] | None:
    try:
        return parse_message_id(frames.decode_headers(raw).get(MESSAGE_ID) or "")
    except frames.BadFrame:
        return None


async def follow(feed: Feed, wait: Callable[[float], Awaitable[bool]], poll_s: float = 1.0) -> None:
    """Wake the feed at each hint that something was committed, for ever."""
    while True:
        await wait(poll_s)
        feed.wake()
