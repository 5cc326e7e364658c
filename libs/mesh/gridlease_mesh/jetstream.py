"""JetStream over a Bus: its API, publishes that are acknowledged, and pulls.

Only what the event feed needs, over the same wire as the calls, so that permissions, reconnects
and loss are treated in one place. Answers come to one inbox of this object's own.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Callable, Iterable
from typing import Any, Final

from gridlease_kernel.faults import Precondition, Unreachable

from gridlease_mesh import frames, subjects
from gridlease_mesh.bus import Bus
from gridlease_mesh.wire import Delivery, Listener, OnDelivery, Unsubscribe, WireDown

TIMEOUT_S: Final = 5.0
STREAM_NOT_FOUND: Final = 10059
NAME_IN_USE: Final = 10058
MESSAGE_NOT_FOUND: Final = 10037
WRONG_LAST_SEQUENCE: Final = 10071


class Refused(Precondition):
    """JetStream answered with an error; ``err_code`` is its own number for it."""

    def __init__(self, subject: str, error: dict[str, Any]) -> None:
        super().__init__(
            f"JetStream refuses {subject}: {error.get('description', 'no reason given')}.",
            reason="JETSTREAM_REFUSES",
            remedy="See the broker's log; the stream's limits may exceed those of the account.",
        )
        self.err_code: int = error.get("err_code", 0)


class JetStream(Listener):
    """One inbox for all answers. Close it before its bus."""

    def __init__(self, bus: Bus, *, timeout_s: float = TIMEOUT_S) -> None:
        assert bus.node_id is None, "nodes have no business with streams"
        self._wire = bus.wire
        self._timeout_s = timeout_s
        self._inbox = f"{subjects.service_inbox(bus.name)}.js{secrets.token_hex(8)}"
        self._waiting: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._pulls: dict[str, OnDelivery] = {}
        self._counter = 0
        self._unsubscribe = self._wire.subscribe(f"{self._inbox}.*", self._on_answer)
        self._wire.add_listener(self)

    async def api(self, subject: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Ask ``$JS.API.<subject>``.

        Raises:
            Refused: it says no.
            Unreachable: no answer, or no JetStream there.
        """
        payload = json.dumps(body).encode() if body is not None else b""
        answer = await self.wait(self._ask(f"$JS.API.{subject}", payload))
        if "error" in answer:
            raise Refused(subject, answer["error"])
        return answer

    def publish(
        self, subject: str, payload: bytes, headers: Iterable[tuple[str, str]] = ()
    ) -> asyncio.Future[dict[str, Any]]:
        """Publish; ``wait`` for the answer, which may be an error, and see ``acknowledged``.

        Raises:
            WireDown: no connection.
        """
        return self._ask(subject, payload, frames.encode_headers(headers))

    async def wait(self, answer: asyncio.Future[dict[str, Any]]) -> dict[str, Any]:
        """The answer, in time.

        Raises:
            Unreachable: there is none.
        """
        try:
            async with asyncio.timeout(self._timeout_s):
                return await answer
        except TimeoutError as error:
            raise Unreachable(
                "JetStream does not answer.",
                reason="JETSTREAM_SILENT",
                remedy="Check the broker; a cluster needs most of its servers.",
            ) from error

    async def ensure_stream(self, config: dict[str, Any]) -> None:
        """Have this stream with this configuration, made or changed.

        Raises:
            Refused, Unreachable: see ``api``.
        """
        name = config["name"]
        try:
            await self.api(f"STREAM.CREATE.{name}", config)
        except Refused as refused:
            if refused.err_code != NAME_IN_USE:
                raise
            await self.api(f"STREAM.UPDATE.{name}", config)

    def pull(
        self, stream: str, consumer: str, batch: int, expires_s: float, callback: OnDelivery
    ) -> Unsubscribe:
        """Ask for messages of a durable consumer; ``callback`` gets them and the end's status."""
        self._counter += 1
        inbox = f"{self._inbox}.pull.{self._counter}"
        stop = self._wire.subscribe(inbox, callback)
        self._pulls[inbox] = callback

        def unsubscribe() -> None:
            self._pulls.pop(inbox, None)
            stop()

        body = json.dumps({"batch": batch, "expires": int(expires_s * 1e9)}).encode()
        try:
            self._wire.publish(f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}", body, reply=inbox)
        except WireDown:
            unsubscribe()
            raise
        return unsubscribe

    def tell(self, subject: str, payload: bytes) -> None:
        """Publish without waiting: the acks of messages.

        Raises:
            WireDown: no connection.
        """
        self._wire.publish(subject, payload)

    def disconnected(self) -> None:
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(WireDown())
        self._waiting.clear()
        for inbox, callback in self._pulls.items():  # it is over: the broker forgets it
            callback(Delivery(inbox, "", b"NATS/1.0 503\r\n\r\n", b""))

    def close(self) -> None:
        """Hear nothing any more; idempotent."""
        self._unsubscribe()
        self._wire.remove_listener(self)
        for answer in self._waiting.values():
            answer.cancel()
        self._waiting.clear()

    def _ask(
        self, subject: str, payload: bytes, headers: bytes = b""
    ) -> asyncio.Future[dict[str, Any]]:
        self._counter += 1
        key = str(self._counter)
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._wire.publish(subject, payload, reply=f"{self._inbox}.{key}", headers=headers)
        self._waiting[key] = answer
        answer.add_done_callback(self._forget(key))
        return answer

    def _forget(self, key: str) -> Callable[[asyncio.Future[dict[str, Any]]], None]:
        def forget(answer: asyncio.Future[dict[str, Any]]) -> None:
            self._waiting.pop(key, None)
            if not answer.cancelled():
                answer.exception()  # read here: nobody may be waiting any more

        return forget

    def _on_answer(self, delivery: Delivery) -> None:
        answer = self._waiting.get(delivery.subject.rpartition(".")[2])
        if answer is None or answer.done():
            return
        try:
            code = frames.decode_headers(delivery.headers).code
            body = json.loads(delivery.payload) if delivery.payload else {}
        except ValueError:
            code, body = 0, {"error": {"description": "an answer that is not JSON"}}
        if code == frames.NO_RESPONDERS:
            fault = Unreachable(
                "There is no such stream now, or no JetStream.",
                reason="JETSTREAM_ABSENT",
                remedy="The feed is built again by itself; enable JetStream on the broker.",
            )
            answer.set_exception(fault)
            return
        answer.set_result(body)


def acknowledged(subject: str, answer: dict[str, Any]) -> int:
    """The stream's sequence of a published message.

    Raises:
        Refused: it was not stored.
    """
    if "error" in answer:
        raise Refused(subject, answer["error"])
    return int(answer["seq"])
