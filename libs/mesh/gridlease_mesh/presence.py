"""Which instance has a call, and is it still there?

Nothing is sent for a call that is answered soon. From ``ASK_AFTER_S`` on, the caller asks: every
instance of the service while nobody has claimed the call, the claiming one afterwards; all calls
of a channel share one question a tick. The broker itself tells of a death: it knows a closed
connection at once and answers a question that nobody hears with "no responders". A busy instance
is not a dead one: it answers late, and nothing ends for that.

Two ends follow, both UNAVAILABLE: the instance is gone; or it is there and has not the call (the
request, or its answer, was lost on the way).
"""

from __future__ import annotations

import asyncio
import collections
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Protocol

from gridlease_mesh import frames, subjects
from gridlease_mesh.calls import MeshCall
from gridlease_mesh.frames import BadFrame, Holding
from gridlease_mesh.wire import Delivery, Wire, WireDown

ASK_AFTER_S = 0.4
TICK_S = 0.4
DENIED_FOR_S = 0.6  # how long another instance may take to claim what one has denied
_CALLS_A_QUESTION = 4096
NEWS = "w0"  # reply token where an instance may speak unasked: it sees whether a caller lives
_MARK = "w"  # first letter of the reply token of a question; calls have digits
_GONE = "the instance that had the call is gone"
_LOST = "the call or its answer was lost on the way"


class Calls(Protocol):
    """The channel, as far as presence knows it."""

    wire: Wire
    root: str
    inbox: str

    def live(self) -> Iterator[MeshCall]:
        """The calls in flight."""
        ...

    def find(self, token: str) -> MeshCall | None:
        """The call whose reply subject ends in ``token``."""
        ...


class Presence:
    """Asks about a channel's calls."""

    def __init__(self, calls: Calls) -> None:
        self._channel = calls
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._asked: dict[str, str] = {}  # reply token → subject
        self._tokens: dict[str, str] = {}  # subject → reply token
        self._refused: set[str] = set()
        self._counter = 0

    def wake(self) -> None:
        """There are calls: keep an eye on them."""
        if self._timer is None:
            self._timer = self._loop.call_later(TICK_S, self._tick)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def ask(self, calls: Iterable[MeshCall]) -> None:
        """Ask about these calls now."""
        questions: dict[str, list[MeshCall]] = collections.defaultdict(list)
        for call in calls:
            asked = f"{call.instance}.who" if call.instance else self._anybody(call)
            questions[asked].append(call)
        for subject, about in questions.items():
            if subject.lower() not in self._refused:
                self._publish(subject, [call.reply.rpartition(".")[2] for call in about])

    def is_answer(self, token: str) -> bool:
        """Whether a message at this reply token is about a question."""
        return token.startswith(_MARK)

    def on_answer(self, token: str, delivery: Delivery) -> None:
        """Take an instance's answer, or the broker's word that none hears.

        Raises:
            BadFrame: it is neither.
        """
        if token == NEWS:
            return
        asked = self._asked.get(token)
        if asked is None:
            raise BadFrame("an answer that nobody asked for")
        if frames.decode_headers(delivery.headers).code == frames.NO_RESPONDERS:
            self._nobody_hears(asked)
            return
        if not delivery.reply.startswith(f"{self._channel.root}._call."):
            raise BadFrame("an answer from a foreign subject")
        self._on_holding(delivery.reply, frames.decode_holding(delivery.payload))

    def on_refused(self, subject: str) -> None:
        """The broker does not let us ask there (``subject`` in lower case): stop asking."""
        if subject in {each.lower() for each in self._tokens}:
            self._refused.add(subject)

    def _tick(self) -> None:
        self._timer = None
        now = self._loop.time()
        live = list(self._channel.live())
        for call in live:
            if call.denied_at is not None and now - call.denied_at >= DENIED_FOR_S:
                call.fail(_LOST)
        if self._channel.wire.connected:
            self.ask(c for c in live if not c.done() and now - c.started_at >= ASK_AFTER_S)
        if live:
            self.wake()
        else:
            self._asked.clear()
            self._tokens.clear()

    def _anybody(self, call: MeshCall) -> str:
        return subjects.who(self._channel.root, call.request.service)

    def _publish(self, subject: str, tokens: list[str]) -> None:
        token = self._tokens.get(subject)
        if token is None:
            self._counter += 1
            token = self._tokens[subject] = f"{_MARK}{self._counter}"
            self._asked[token] = subject
        reply = f"{self._channel.inbox}.{token}"
        for at in range(0, len(tokens), _CALLS_A_QUESTION):
            body = frames.encode_asked(tokens[at : at + _CALLS_A_QUESTION])
            try:
                self._channel.wire.publish(subject, body, reply=reply)
            except WireDown:
                return

    def _nobody_hears(self, asked: str) -> None:
        for call in list(self._channel.live()):
            of = f"{call.instance}.who" if call.instance else self._anybody(call)
            if asked == of:
                call.fail(_GONE)

    def _on_holding(self, instance: str, holding: Holding) -> None:
        for token in holding.mine:
            call = self._channel.find(token)
            if call is not None:
                call.claimed(instance)
        for token in holding.others:
            call = self._channel.find(token)
            if call is None:
                continue
            if call.instance == instance:  # it had the call, and its answer would be here by now
                call.fail(_LOST)
            elif not call.instance and call.denied_at is None:
                call.denied_at = self._loop.time()


def answer(
    wire: Wire, delivery: Delivery, *, instance: str, has: Callable[[str], bool] | Collection[str]
) -> None:
    """Tell the asking channel which of the calls in its question ``instance`` has."""
    holds = has if callable(has) else has.__contains__
    inbox = delivery.reply.rpartition(".")[0]
    mine: list[str] = []
    others: list[str] = []
    for token in frames.decode_asked(delivery.payload):
        (mine if holds(f"{inbox}.{token}") else others).append(token)
    body = frames.encode_holding(Holding(tuple(mine), tuple(others)))
    wire.publish(delivery.reply, body, reply=instance)
