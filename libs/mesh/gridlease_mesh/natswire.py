"""The wire over NATS: nats-py with messages handed straight to synchronous callbacks.

nats-py gives reconnects, TLS and credentials; its own delivery costs a queue and a task switch a
message, which is most of the price of a call. So subclasses of its client and parser use private
hooks. The minor version is pinned for that reason, ``missing_hooks`` checks them at start-up, and
``publicwire`` stands in where they changed.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import inspect
import logging
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nats.errors
from gridlease_kernel.faults import Unauthenticated, Unreachable
from nats.aio.client import Client, Server
from nats.aio.subscription import Subscription
from nats.protocol.parser import AWAITING_CONTROL_LINE, Parser

from gridlease_mesh.deadletters import CALLBACK_FAILED, DeadLetters
from gridlease_mesh.wire import Delivery, Listener, OnDelivery, Unsubscribe, WireDown

_LOG = logging.getLogger(__name__)
_REFUSED = re.compile(r'permissions violation for publish to "([^"]+)"')
_BUFFER_BYTES = 8 << 20
_MAX_LEAVING = 64
_FIRST_WAIT_S = 0.2
_BACKOFF_MAX_S = 3.0
_CONTROL_LINE_BYTES = 4096
_HOOKS = [
    "_pending",
    "_pending_data_size",
    "_process_err",
    "_process_msg",
    "_process_op_err",
    "_ps",
    "_sid",
    "_subs",
    "_transport",
]
_PROCESS_MSG = ["self", "sid", "subject", "reply", "data", "headers"]


def missing_hooks() -> list[str]:
    """The private parts of nats-py that this wire uses and this version does not have."""
    client = _DirectClient()
    missing = [hook for hook in _HOOKS if not hasattr(client, hook)]
    if list(inspect.signature(Client._process_msg).parameters) != _PROCESS_MSG:  # noqa: SLF001
        missing.append("_process_msg(…)")
    if not hasattr(Parser(client), "buf") or not hasattr(Parser(client), "state"):
        missing.append("Parser.buf")
    return missing


def _choose_server(servers: list[Server], _info: dict[str, Any]) -> tuple[Server, float]:
    """The least tried server, after a wait that doubles up to a bound, with jitter."""
    chosen = min(servers, key=lambda server: server.reconnects)
    wait_s = min(_BACKOFF_MAX_S, 0.05 * 2 ** min(chosen.reconnects, 10))
    return chosen, wait_s * random.uniform(0.5, 1.0)  # noqa: S311 - jitter


class _DirectParser(Parser):
    """Hands whole messages of direct subscriptions over; leaves all else to nats-py."""

    async def parse(self, data: bytes = b"") -> None:
        buffer: bytearray = self.buf
        buffer.extend(data)
        client: _DirectClient = self.nc
        while self.state == AWAITING_CONTROL_LINE:
            headed = buffer.startswith(b"HMSG ")
            if not headed and not buffer.startswith(b"MSG "):
                break
            end = buffer.find(b"\r\n", 0, _CONTROL_LINE_BYTES)
            if end < 0:
                break
            fields = bytes(buffer[4 + headed : end]).split()
            callback = client.direct.get(int(fields[1])) if len(fields) > 2 + headed else None
            if callback is None:
                break
            start, size = end + 2, int(fields[-1])
            stop = start + size
            if len(buffer) < stop + 2:
                return  # the rest is on its way
            split = start + int(fields[-2]) if headed else start
            reply = fields[2] if len(fields) > 3 + headed else b""
            headers, payload = bytes(buffer[start:split]), bytes(buffer[split:stop])
            del buffer[: stop + 2]
            client.deliver(callback, fields[0], reply, headers, payload)
        if buffer:
            await super().parse(b"")


class _DirectClient(Client):
    """nats-py whose direct subscriptions skip the queue."""

    def __init__(self) -> None:
        super().__init__()
        self._ps = _DirectParser(self)
        self.dead_letters = DeadLetters()
        self._writing = False
        self._buffered = 0
        self.direct: dict[int, OnDelivery] = {}
        self._leaving: collections.deque[int] = collections.deque()
        self.on_refused: Callable[[str], None] = lambda _subject: None

    def deliver(
        self, callback: OnDelivery, subject: bytes, reply: bytes, headers: bytes, data: bytes
    ) -> None:
        try:
            callback(Delivery(subject.decode(), reply.decode(), headers, data))
        except Exception:  # noqa: BLE001 - an escape would end nats-py's read loop for good
            self.dead_letters.count(CALLBACK_FAILED)
            _LOG.exception("a mesh callback failed", extra={"subject": repr(subject)})

    async def _process_msg(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes
    ) -> None:
        callback = self.direct.get(sid)
        if callback is None:
            await super()._process_msg(sid, subject, reply, data, headers)
        else:
            self.deliver(callback, bytes(subject), bytes(reply or b""), bytes(headers or b""), data)

    async def _process_err(self, err_msg: str) -> None:
        refused = _REFUSED.search(err_msg)
        if refused:
            self.on_refused(refused[1])
        elif self.is_connected and "permissions violation" not in err_msg:
            # Expired or revoked credentials, a slow consumer, a server going away: nats-py would
            # close for good; a node must come back, with the credentials then on disk.
            await self._process_op_err(nats.errors.Error(f"nats: {err_msg}"))
            return
        await super()._process_err(err_msg)

    # The three below add to what nats-py keeps, without waiting.

    def send(self, command: bytes) -> None:
        self._pending.append(command)
        self._pending_data_size += len(command)
        if not self._writing:  # once a turn of the loop, with all that this turn sends
            self._writing = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self._writing = False
        if self.is_connected:
            self.write_out()

    def write_out(self) -> None:
        """Hand what waits to the socket now: nats-py's own PING would overtake it."""
        if self._pending and self._transport is not None:
            self._transport.writelines(self._pending[:])
            self._pending = []
            self._pending_data_size = 0
            self._look_at_socket()

    def listen(self, subject: str, queue: str, callback: OnDelivery) -> int:
        self._sid += 1
        sid = self._sid
        self._subs[sid] = Subscription(self, sid, subject, queue)  # replayed on reconnect
        self.direct[sid] = callback
        if self.is_connected:
            self.send(f"SUB {subject} {queue} {sid}\r\n".encode())
        return sid

    def unlisten(self, sid: int) -> None:
        """Stop hearing; what the broker has sent already still comes, until a flush."""
        self._leaving.append(sid)
        if len(self._leaving) > _MAX_LEAVING:
            self.direct.pop(self._leaving.popleft(), None)
        if self._subs.pop(sid, None) is not None and self.is_connected:
            self.send(f"UNSUB {sid}\r\n".encode())

    async def settle(self, timeout_s: float) -> None:
        """Wait until the broker has seen all that went before."""
        left = len(self._leaving)
        self.write_out()
        await self.flush(timeout=max(1, round(timeout_s)))
        for _ in range(min(left, len(self._leaving))):
            self.direct.pop(self._leaving.popleft(), None)

    @property
    def waiting_bytes(self) -> int:
        """What the socket has not taken yet."""
        if self._buffered:  # as of the last write; it may have gone out since
            self._look_at_socket()
        return self._pending_data_size + self._buffered

    def _look_at_socket(self) -> None:
        writer = getattr(self._transport, "_io_writer", None)
        self._buffered = writer.transport.get_write_buffer_size() if writer else 0


class NatsWire:
    """One connection to NATS that comes back by itself for ever. Make it with ``connect``."""

    def __init__(self) -> None:
        self._client = _DirectClient()
        self._client.on_refused = self._refused
        self.dead_letters = self._client.dead_letters
        self._listeners: list[Listener] = []
        self._last_error: Exception | None = None
        self._auth_refused = False
        self._closing = False

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
    ) -> NatsWire:
        """A connected wire. ``creds`` is read again at each reconnect, so it may be renewed.

        Args:
            timeout_s: how long to try at first; None tries for ever.
            listener: is told of the first connection too.

        Raises:
            Unreachable: no answer from ``url`` in time.
            Unauthenticated: the broker refuses the credentials.
        """
        wire = cls()
        if listener is not None:
            wire.add_listener(listener)
        try:
            async with asyncio.timeout(timeout_s):
                await wire._open(url, creds, name, inbox_prefix)
        except (TimeoutError, nats.errors.Error, OSError) as error:
            await wire.close()
            raise wire._explain(url, error) from error
        wire._tell(Listener.connected)
        return wire

    async def _open(self, url: str, creds: Path | None, name: str, inbox_prefix: str) -> None:
        await self._client.connect(
            url.split(","),
            name=name or None,
            user_credentials=str(creds) if creds else None,
            inbox_prefix=inbox_prefix,
            max_reconnect_attempts=-1,
            reconnect_time_wait=_FIRST_WAIT_S,  # type: ignore[arg-type] # said int, used as float
            connect_timeout=5,
            ping_interval=5,
            max_outstanding_pings=2,
            pending_size=_BUFFER_BYTES,
            error_cb=self._on_error,
            disconnected_cb=self._on_disconnected,
            reconnected_cb=self._on_reconnected,
            reconnect_to_server_handler=_choose_server,
        )

    def _explain(self, url: str, error: Exception) -> Unreachable | Unauthenticated:
        last = self._last_error or error
        if self._auth_refused:
            return Unauthenticated(
                f"NATS at {url} refused the credentials.",
                reason="NATS_REFUSED",
                remedy="Enrol again, or point to the credentials file of this installation.",
            )
        return Unreachable(
            f"NATS at {url} does not answer ({str(last) or 'timeout'}).",
            reason="NATS_UNREACHABLE",
            remedy="Start it, or check the address and the firewall.",
        )

    async def _on_error(self, error: Exception) -> None:
        self._last_error = error
        # A reset may follow the broker's word and hide it.
        self._auth_refused |= "authorization" in str(error).lower()
        _LOG.debug("nats: %s", error)

    async def _on_disconnected(self) -> None:
        if not self._closing:
            _LOG.warning("lost the connection to NATS")
            self._tell(Listener.disconnected)

    async def _on_reconnected(self) -> None:
        _LOG.info("connected to NATS again")
        self._tell(Listener.connected)

    def _refused(self, subject: str) -> None:
        _LOG.warning("NATS refused a publish to %s", subject)
        for listener in list(self._listeners):
            listener.refused(subject)

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
        return self._client.waiting_bytes > _BUFFER_BYTES // 8

    def publish(
        self, subject: str, payload: bytes, *, reply: str = "", headers: bytes = b""
    ) -> None:
        size, client = len(headers) + len(payload), self._client
        assert size <= client.max_payload, size
        if not client.is_connected:
            raise WireDown
        if client.waiting_bytes + size > _BUFFER_BYTES:
            raise WireDown("The buffer of the connection to NATS is full.")
        if headers:
            head = f"HPUB {subject} {reply} {len(headers)} {size}\r\n".encode()
            client.send(b"%b%b%b\r\n" % (head, headers, payload))
        else:
            client.send(b"%b%b\r\n" % (f"PUB {subject} {reply} {size}\r\n".encode(), payload))

    def subscribe(self, subject: str, callback: OnDelivery, *, queue: str = "") -> Unsubscribe:
        sid = self._client.listen(subject, queue, callback)
        return lambda: self._client.unlisten(sid)

    async def flush(self, timeout_s: float = 5.0) -> None:
        if not self._client.is_connected:
            raise WireDown
        try:
            async with asyncio.timeout(timeout_s):
                await self._client.settle(timeout_s)
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
        self._client.direct.clear()
        if self._client.options:
            with contextlib.suppress(nats.errors.Error, OSError, AssertionError):
                await self._client.close()
        for listener in list(self._listeners):
            listener.disconnected()
        self._listeners.clear()
