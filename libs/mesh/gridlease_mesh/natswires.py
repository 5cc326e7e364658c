"""Chooses the wire to NATS: the direct one where nats-py's inside is as it knows it.

The choice is made at start-up, by two looks: are the private hooks there, and does the broker's
word come through them? The question is one that nobody answers: every identity may ask it, and
the broker says "no responders" at once. Where not, the slow wire stands in, with a warning.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from pathlib import Path

from gridlease_mesh import frames, natswire
from gridlease_mesh.natswire import NatsWire
from gridlease_mesh.publicwire import PublicWire
from gridlease_mesh.wire import Delivery, Listener, Wire, WireDown

_LOG = logging.getLogger(__name__)
_ANSWER_S = 3.0


async def connect(
    url: str,
    *,
    creds: Path | None = None,
    name: str = "",
    inbox_prefix: str = "_INBOX",
    nobody: str,
    timeout_s: float | None = 10.0,
) -> Wire:
    """A connected wire, the direct one if it passes its check.

    Args:
        nobody: a subject that we may publish to and nobody hears.

    Raises:
        Unreachable: no answer from ``url`` in time.
        Unauthenticated: the broker refuses the credentials.
    """
    missing = natswire.missing_hooks()
    if not missing:
        direct = await NatsWire.connect(
            url, creds=creds, name=name, inbox_prefix=inbox_prefix, timeout_s=timeout_s
        )
        if await is_sound(direct, inbox_prefix, nobody):
            return direct
        await direct.close()
        missing = ["an answer"]
    _LOG.warning("nats-py lacks %s: the slow wire stands in", ", ".join(missing))
    return await PublicWire.connect(
        url, creds=creds, name=name, inbox_prefix=inbox_prefix, timeout_s=timeout_s
    )


class _Refusal(Listener):
    def __init__(self, answer: asyncio.Future[bool]) -> None:
        self._answer = answer

    def refused(self, subject: str) -> None:
        del subject
        if not self._answer.done():
            self._answer.set_result(True)  # the broker's word came, if not the one we asked for


async def is_sound(wire: Wire, inbox_prefix: str, nobody: str) -> bool:
    """Whether the broker's answer to a question that nobody hears comes back as it should."""
    reply = f"{inbox_prefix}.{secrets.token_hex(8)}.check"
    answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def hear(delivery: Delivery) -> None:
        code = frames.decode_headers(delivery.headers).code
        if not answer.done():
            answer.set_result(code == frames.NO_RESPONDERS and delivery.subject == reply)

    refusal = _Refusal(answer)
    wire.add_listener(refusal)
    unsubscribe = wire.subscribe(reply, hear)
    try:
        wire.publish(
            nobody, b"\x00\r\nMSG", reply=reply, headers=frames.encode_headers([("a", "b")])
        )
        async with asyncio.timeout(_ANSWER_S):
            return await answer
    except TimeoutError:
        return not wire.connected  # a connection that went away shows nothing
    except WireDown:
        return True
    finally:
        unsubscribe()
        wire.remove_listener(refusal)
