"""A bare HTTP/1.1 client: one connection that is kept, one request at a time, no library.

Kinder to HTTP than any client a user would have (aiohttp, httpx cost several times more).
"""

import asyncio


class Connection(asyncio.Protocol):
    """POSTs JSON and returns the body of a 200."""

    def __init__(self, host):
        self._head = (
            f" HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\ncontent-length: "
        ).encode()
        self._received = b""
        self._waiting = None
        self._transport = None

    @classmethod
    async def open(cls, address):
        host, _, port = address.rpartition(":")
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(lambda: cls(address), host, int(port))
        return connection

    def connection_made(self, transport):
        self._transport = transport

    def connection_lost(self, error):
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(error or ConnectionError("the server closed it"))

    def data_received(self, data):
        self._received += data
        head, blank, body = self._received.partition(b"\r\n\r\n")
        if not blank:
            return
        assert head.startswith(b"HTTP/1.1 200"), head
        lower = head.lower()
        start = lower.index(b"content-length:") + len(b"content-length:")
        size = int(lower[start:].split(b"\r\n", 1)[0])
        if len(body) >= size:
            self._received = body[size:]
            self._waiting.set_result(body[:size])

    async def post(self, path, body):
        if self._transport.is_closing():
            raise ConnectionError("the server closed it")
        self._waiting = asyncio.get_running_loop().create_future()
        self._transport.write(
            b"".join((b"POST ", path, self._head, str(len(body)).encode(), b"\r\n\r\n", body))
        )
        return await self._waiting

    def close(self):
        self._transport.close()
