"""A connection to NATS with as little as will do: for load generators that are thousands of nodes.

It is a ``Wire``, so that the product's own senders run on it; it does not reconnect.
"""

import asyncio
import base64
import json

import nkeys
from gridlease_mesh.deadletters import DeadLetters
from gridlease_mesh.wire import Delivery, WireDown

_PRESSURE_BYTES = 64 << 10


class BareWire(asyncio.Protocol):
    """One real connection, with a node's own token."""

    def __init__(self, token, seed):
        self._token = token
        self._seed = seed
        self._received = b""
        self._callbacks = {}
        self._transport = None
        self._pong = None
        self._ready = asyncio.get_running_loop().create_future()
        self.max_payload_bytes = 1 << 20
        self.connected = False
        self.dead_letters = DeadLetters()

    @classmethod
    async def connect(cls, host, port, token, seed):
        loop = asyncio.get_running_loop()
        _, wire = await loop.create_connection(lambda: cls(token, seed), host, port)
        await wire._ready
        return wire

    # Protocol

    def connection_made(self, transport):
        self._transport = transport

    def connection_lost(self, error):
        self.connected = False
        for waiting in (self._ready, self._pong):
            if waiting is not None and not waiting.done():
                waiting.set_exception(error or ConnectionError("the broker closed it"))

    def data_received(self, data):
        self._received += data
        while (end := self._received.find(b"\r\n")) >= 0:
            line = self._received[:end]
            if line.startswith(b"MSG "):
                size = int(line.rsplit(b" ", 1)[1])
                if len(self._received) < end + size + 4:
                    return
                self._on_message(line, self._received[end + 2 : end + 2 + size])
                self._received = self._received[end + size + 4 :]
                continue
            self._received = self._received[end + 2 :]
            self._on_line(line)

    def _on_message(self, line, payload):
        words = line.decode().split(" ")
        reply = words[3] if len(words) == 5 else ""
        self._callbacks[words[2]](Delivery(words[1], reply, b"", payload))

    def _on_line(self, line):
        if line == b"PING":
            self._transport.write(b"PONG\r\n")
        elif line == b"PONG":
            if not self._ready.done():
                self.connected = True
                self._ready.set_result(None)
            elif self._pong is not None and not self._pong.done():
                self._pong.set_result(None)
        elif line.startswith(b"INFO ") and not self.connected:
            self._introduce(json.loads(line[5:]))
        elif line.startswith(b"-ERR") and not self._ready.done():
            self._ready.set_exception(ConnectionError(line.decode()))

    def _introduce(self, info):
        signature = nkeys.from_seed(bytearray(self._seed.encode())).sign(info["nonce"].encode())
        options = {
            "verbose": False,
            "pedantic": False,
            "lang": "python",
            "version": "bench",
            "protocol": 1,
            "jwt": self._token,
            "sig": base64.urlsafe_b64encode(signature).decode().rstrip("="),
        }
        self._transport.write(b"CONNECT " + json.dumps(options).encode() + b"\r\nPING\r\n")

    # Wire

    @property
    def congested(self):
        return self._transport.get_write_buffer_size() > _PRESSURE_BYTES

    def publish(self, subject, payload, *, reply="", headers=b""):
        if not self.connected:
            raise WireDown
        assert not headers
        head = f"PUB {subject} {reply} {len(payload)}\r\n".encode()
        self._transport.write(b"".join((head, payload, b"\r\n")))

    def subscribe(self, subject, callback, *, queue=""):
        sid = str(len(self._callbacks) + 1)
        self._callbacks[sid] = callback
        self._transport.write(f"SUB {subject} {queue} {sid}\r\n".encode())
        return lambda: self._transport.write(f"UNSUB {sid}\r\n".encode())

    async def flush(self, timeout_s=5.0):
        self._pong = asyncio.get_running_loop().create_future()
        self._transport.write(b"PING\r\n")
        async with asyncio.timeout(timeout_s):
            await self._pong

    def add_listener(self, listener):
        """Nothing to tell: it does not come back."""

    def remove_listener(self, listener):
        """See ``add_listener``."""

    async def close(self):
        self._transport.close()
