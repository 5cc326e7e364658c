"""The wire over NATS by nats-py's documented interface alone: slow, and sure to keep working.

What it cannot do as the direct wire does: a metadata key that occurs twice keeps its last value,
and two subscriptions of one connection may be served in either order.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import nats
import nats.errors
from gridlease_kernel.faults import Unauthenticated, Unreachable
from nats.aio.client import Client
from nats.aio.msg import Msg

from gridlease_mesh import frames
from gridlease_mesh.deadletters import CALLBACK_FAILED, DeadLetters
from gridlease_mesh.wire import Delivery, Listener, OnDelivery, Unsubscribe, WireDown

_LOG = logging.getLogger(__name__)
_BUFFER_BYTES = 8 << 20
_STATUS = "Status"  # nats-py's name for the broker's inline code
_DESCRIPTION = "Description"

Step = Callable[[], Awaitable[None]]


def _block(headers: dict[str, str] | None) -> bytes:
    """Headers as nats-py gives them, as the block that they were."""
    if not headers:
        return b""
    pairs = [(k, v) for k, v in headers.items() if k not in (_STATUS, _DESCRIPTION)]
    lines = "".join(f"{key}: {value}\r\n" for key, value in pairs)
    code = f" {headers[_STATUS]}" if _STATUS in headers else ""
    return f"NATS/1.0{code}\r\n{lines}\r\n".encode()


class PublicWire:
    """One connection to NATS that comes back by itself for ever. Make it with ``connect``."""

    def __init__(self) -> None:
        self.dead_letters = DeadLetters()
        self._client: Client = Client()
        self._listeners: list[Listener] = []
        self._steps: asyncio.Queue[tuple[int, Step]] = asyncio.Queue()
        self._waiting_bytes = 0
        self._subscriptions: dict[int, Any] = {}
        self._numbers = itertools.count(1)
        self._last_error: Exception | None = None
        self._closing = False
        self._pump: asyncio.Task[None] | None = None

    @classmethod
    async def connect(
        cls,
        url: str,
        *,
        creds: Path | None = None,
        name: str = "",
        inbox_prefix: str = "_INBOX",
        timeout_s: float | None = 10.0,
        listener: Listener | None = None,
    ) -> PublicWire:
        """A connected wire; the arguments are those of the direct one.

        Raises:
            Unreachable: no answer from ``url`` in time.
            Unauthenticated: the broker refuses the credentials.
        """
        wire = cls()
        if listener is not None:
            wire.add_listener(listener)
        try:
            async with asyncio.timeout(timeout_s):
                wire._client = await nats.connect(
                    url.split(","),
                    name=name or None,
                    user_credentials=str(creds) if creds else None,
                    inbox_prefix=inbox_prefix,
                    max_reconnect_attempts=-1,
                    reconnect_time_wait=1,
                    ping_interval=5,
                    max_outstanding_pings=2,
                    error_cb=wire._on_error,
                    disconnected_cb=wire._on_disconnected,
                    reconnected_cb=wire._on_reconnected,
                )
        except (TimeoutError, nats.errors.Error, OSError) as error:
            raise wire._explain(url, error) from error
        wire._pump = asyncio.create_task(wire._run())
        wire._tell(Listener.connected)
        return wire

    def _explain(self, url: str, error: Exception) -> Unreachable | Unauthenticated:
        last = str(self._last_error or error)
        if "authorization" in last.lower():
            return Unauthenticated(
                f"NATS at {url} refused the credentials.",
                reason="NATS_REFUSED",
                remedy="Enrol again, or point to the credentials file of this installation.",
            )
        return Unreachable(
            f"NATS at {url} does not answer ({last or 'timeout'}).",
            reason="NATS_UNREACHABLE",
            remedy="Start it, or check the address and the firewall.",
        )

    async def _on_error(self, error: Exception) -> None:
        self._last_error = error
        text = str(error).lower()
        if 'permissions violation for publish to "' in text:
            subject = text.split('publish to "', 1)[1].partition('"')[0]
            for listener in list(self._listeners):
                listener.refused(subject)
        _LOG.debug("nats: %s", error)

    async def _on_disconnected(self) -> None:
        if not self._closing:
            _LOG.warning("lost the connection to NATS")
            self._tell(Listener.disconnected)

    async def _on_reconnected(self) -> None:
        _LOG.info("connected to NATS again")
        self._tell(Listener.connected)

    def _tell(self, event: Callable[[Listener], None]) -> None:
        for listener in list(self._listeners):
            getattr(listener, event.__name__)()

    @property
    def connected(self) -> bool:
        return self._client.is_connected

    @property
    def max_payload_bytes(self) -> int:
        return self._client.max_payload

    @property
    def congested(self) -> bool:
        return self._waiting_bytes > _BUFFER_BYTES // 8

    def publish(
        self, subject: str, payload: bytes, *, reply: str = "", headers: bytes = b""
    ) -> None:
        size = len(headers) + len(payload)
        assert size <= self._client.max_payload, size
        if not self._client.is_connected:
            raise WireDown
        if self._waiting_bytes + size > _BUFFER_BYTES:
            raise WireDown("The buffer of the connection to NATS is full.")
        given = dict(frames.decode_headers(headers).pairs) if headers else None

        async def step() -> None:
            await self._client.publish(subject, payload, reply=reply, headers=given)

        self._put(size, step)

    def subscribe(self, subject: str, callback: OnDelivery, *, queue: str = "") -> Unsubscribe:
        number = next(self._numbers)

        async def hear(message: Msg) -> None:
            try:
                block = _block(message.headers)
                callback(Delivery(message.subject, message.reply, block, message.data))
            except Exception:  # noqa: BLE001 - one callback's bug is its own
                self.dead_letters.count(CALLBACK_FAILED)
                _LOG.exception("a mesh callback failed", extra={"subject": message.subject})

        async def start() -> None:
            made = await self._client.subscribe(subject, queue=queue, cb=hear)
            self._subscriptions[number] = made

        async def stop() -> None:
            made = self._subscriptions.pop(number, None)
            if made is not None:
                await made.unsubscribe()

        self._put(0, start)
        return lambda: self._put(0, stop)

    async def flush(self, timeout_s: float = 5.0) -> None:
        if not self._client.is_connected:
            raise WireDown
        try:
            async with asyncio.timeout(timeout_s):
                await self._steps.join()
                await self._client.flush(timeout=max(1, round(timeout_s)))
        except (TimeoutError, nats.errors.Error, OSError) as error:
            raise WireDown from error

    def add_listener(self, listener: Listener) -> None:
        self._listeners.append(listener)

    def remove_listener(self, listener: Listener) -> None:
        if listener in self._listeners:
            self._listeners.remove(listener)

    async def close(self) -> None:
        if self._closing:
            return
        self._closing = True
        if self._pump is not None:
            self._pump.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._pump
        with contextlib.suppress(nats.errors.Error, OSError, AssertionError):
            await self._client.close()
        for listener in list(self._listeners):
            listener.disconnected()
        self._listeners.clear()

    def _put(self, size: int, step: Step) -> None:
        if not self._closing:
            self._waiting_bytes += size
            self._steps.put_nowait((size, step))

    async def _run(self) -> None:
        """Do what was asked for, in its order."""
        while True:
            size, step = await self._steps.get()
            try:
                await step()
            except (nats.errors.Error, OSError, ValueError) as error:
                _LOG.info("nats did not take a step: %s", error)
            finally:
                self._waiting_bytes -= size
                self._steps.task_done()
