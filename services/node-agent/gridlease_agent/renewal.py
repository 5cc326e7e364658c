"""Keeps the node's credential alive: renewed before two thirds of its life are over.

Over the mesh while the broker lets the node in; at the gateway where it was away for too long.
The connection shows the new one when the broker ends it at the old one's expiry, or at once when
the node comes back. A node that was cut off is refused at both.
"""

from __future__ import annotations

import asyncio
import datetime
import logging
import random
from collections.abc import Awaitable, Callable
from typing import Protocol

from gridlease_kernel.clock import Clock
from gridlease_kernel.faults import Fault

_LOG = logging.getLogger(__name__)
_FIRST_RETRY_S = 1.0
_LAST_RETRY_S = 60.0
# Of a credential's life: when to renew, and below what is left the gateway is asked as well.
_RENEW_FROM, _RENEW_TO = 0.5, 0.6
_LITTLE = 0.25


class Token(Protocol):
    """The credential on disk."""

    def left(self, now: datetime.datetime) -> float: ...

    def renew(self, token: str) -> None: ...

    async def ask_the_door(self) -> None: ...


class Renewal:
    """The loop."""

    def __init__(
        self,
        token: Token,
        ask_the_mesh: Callable[[], Awaitable[tuple[str, int]]],
        connected: Callable[[], bool],
        clock: Clock,
        jitter: random.Random,
    ) -> None:
        self._token = token
        self._ask_the_mesh = ask_the_mesh
        self._connected = connected
        self._clock = clock
        self._jitter = jitter
        self._retry_s = _FIRST_RETRY_S
        self.count = 0

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            rest_s = await self.turn()
            await asyncio.sleep(rest_s)

    async def turn(self) -> float:
        """Renew, by whichever way is open; how long to wait for the next look, in seconds.

        The clock of the host may be wrong, so a renewal at the start tells how long to wait; what
        the token itself says decides only whether to try the door.
        """
        try:
            if self._connected():
                token, valid_ms = await self._ask_the_mesh()
                if token:
                    self._token.renew(token)
            elif self._token.left(self._clock.wall()) < _LITTLE:
                await self._token.ask_the_door()
                valid_ms = 0
            else:
                return self._retry()
        except Fault as fault:
            _LOG.warning("the credential was not renewed: %s", fault)
            return self._retry()
        self.count += 1
        if valid_ms <= 0:
            return self._retry()
        self._retry_s = _FIRST_RETRY_S
        return valid_ms / 1e3 * self._jitter.uniform(_RENEW_FROM, _RENEW_TO)

    def _retry(self) -> float:
        wait_s, self._retry_s = self._retry_s, min(_LAST_RETRY_S, self._retry_s * 2)
        return wait_s * self._jitter.uniform(0.5, 1.0)
