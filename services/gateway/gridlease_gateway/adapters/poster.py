"""One HTTP POST to a stranger: resolved once, to public addresses, never led on, soon over."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Mapping

from gridlease_kernel.faults import Unreachable

from gridlease_gateway.domain.webhooks import Target, pick, target_of

_ALL_S = 10.0
_LINE_BYTES = 8 << 10
_WELL = range(200, 300)


class HttpPoster:
    """``ports.Poster``. ``local``: plain HTTP and any address are allowed; for tests alone."""

    def __init__(self, *, local: bool = False) -> None:
        self._local = local
        self._context = ssl.create_default_context()

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> None:
        """Returns once the other side has taken it.

        Raises:
            Invalid: WEBHOOK_URL_REFUSED.
            Unreachable: WEBHOOK_FAILED, with what it said.
        """
        target = target_of(url, local=self._local)
        try:
            async with asyncio.timeout(_ALL_S):
                status = await self._send(target, headers, body)
        except (OSError, TimeoutError, ssl.SSLError, ValueError, asyncio.IncompleteReadError) as it:
            raise _failed(type(it).__name__) from it
        if status not in _WELL:
            raise _failed(f"HTTP {status}")

    async def _send(self, target: Target, headers: Mapping[str, str], body: bytes) -> int:
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
        except socket.gaierror as error:
            raise _failed("its name is not known") from error
        # Resolved once: what was checked is what is connected to.
        address = pick([str(it[4][0]) for it in found], local=self._local)
        secure = self._context if target.secure else None
        reader, writer = await asyncio.open_connection(
            address,
            target.port,
            ssl=secure,
            server_hostname=target.host if secure else None,
            limit=_LINE_BYTES,
        )
        try:
            writer.write(_request(target, headers, body))
            await writer.drain()
            line = await reader.readline()
            version, _, rest = line.decode("latin-1").partition(" ")
            if not version.startswith("HTTP/1."):
                raise ValueError("not HTTP")
            return int(rest[:3])
        finally:
            writer.close()
            with contextlib.suppress(OSError, ssl.SSLError):
                writer.transport.abort()


def _request(target: Target, headers: Mapping[str, str], body: bytes) -> bytes:
    host = f"[{target.host}]" if ":" in target.host else target.host
    given = {
        "Host": f"{host}:{target.port}",
        "User-Agent": "gridlease",
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        "Connection": "close",
        **headers,
    }
    lines = [f"POST {target.path} HTTP/1.1", *(f"{k}: {v}" for k, v in given.items()), "", ""]
    return "\r\n".join(lines).encode("ascii") + body


def _failed(why: str) -> Unreachable:
    return Unreachable(
        f"The webhook was not taken: {why}.",
        reason="WEBHOOK_FAILED",
        remedy="Answer with 2xx within 10 seconds; redirects are not followed.",
    )
