"""Who may do what, how often: the checks that no call can walk around."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import logging
from collections.abc import Iterator

from gridlease_kernel.clock import Clock
from gridlease_kernel.faults import Exhausted, Unauthenticated, Unreachable

from gridlease_gateway.domain import keys, rates
from gridlease_gateway.domain.keys import Caller, KeyRecord
from gridlease_gateway.domain.rates import Rate
from gridlease_gateway.ports import AccessStore

_LOG = logging.getLogger(__name__)
_FRESH_NS = 500_000_000  # a revoked key is refused everywhere within a second
_STALE_NS = 60_000_000_000  # while the database is away nobody can revoke either
_CACHED_MAX = 10_000


class Guard:
    """Authenticates by key and keeps each key within its rate."""

    def __init__(self, store: AccessStore, clock: Clock, *, rate: Rate, max_streams: int) -> None:
        self._store = store
        self._clock = clock
        self._rate = rate
        self._max_streams = max_streams
        self._cache: collections.OrderedDict[str, tuple[int, KeyRecord]] = collections.OrderedDict()
        self._due: collections.OrderedDict[str, int] = collections.OrderedDict()
        self._streams: collections.Counter[str] = collections.Counter()
        self._asking: dict[str, asyncio.Future[KeyRecord | None]] = {}

    async def authenticate(self, authorization: str) -> Caller:
        """Who calls.

        Raises:
            Unauthenticated: no key, an unknown, revoked or expired one.
            Unreachable: the database is away and the key is not known here.
        """
        if not authorization:
            raise _missing_key()
        key_id, secret = keys.read_header(authorization)
        record = await self._record(key_id)
        return keys.identify(record, secret, self._clock.wall())

    def spend(self, caller: Caller, peer: str) -> None:
        """Count one call.

        Raises:
            Exhausted: RATE_LIMITED, with when to come back.
        """
        name = caller.key_id or peer
        now_ns = self._clock.boottime_ns()
        verdict = rates.admit(self._rate, self._due.get(name, 0), now_ns)
        self._due[name] = verdict.due_ns
        self._due.move_to_end(name)
        while len(self._due) > _CACHED_MAX:
            self._due.popitem(last=False)
        if verdict.wait_ns:
            raise Exhausted(
                f"This key makes more than {self._rate.per_s} calls a second.",
                reason="RATE_LIMITED",
                remedy="Slow down; watch (WatchJob, WatchEvents) instead of asking often.",
                retry_after_ms=-(-verdict.wait_ns // 1_000_000),
            )

    @contextlib.contextmanager
    def streaming(self, caller: Caller) -> Iterator[None]:
        """Hold one of the key's streams for the block.

        Raises:
            Exhausted: TOO_MANY_STREAMS.
        """
        name = caller.key_id
        if self._streams[name] >= self._max_streams:
            raise Exhausted(
                f"This key has {self._max_streams} streams open.",
                reason="TOO_MANY_STREAMS",
                remedy="Close some of them first.",
            )
        self._streams[name] += 1
        try:
            yield
        finally:
            self._streams[name] -= 1
            if not self._streams[name]:
                del self._streams[name]

    def forget(self, key_id: str) -> None:
        """Ask the store again at the next call: the key was changed here."""
        self._cache.pop(key_id, None)

    async def _record(self, key_id: str) -> KeyRecord | None:
        now_ns = self._clock.boottime_ns()
        read_ns, known = self._cache.get(key_id, (0, None))
        if known is not None and now_ns - read_ns < _FRESH_NS:
            return known
        try:
            found = await self._ask_once(key_id)
        except Unreachable:
            if known is None or now_ns - read_ns > _STALE_NS:
                raise
            _LOG.warning("the database is away; a cached key is taken")
            return known
        if found is not None:
            self._cache[key_id] = (now_ns, found)
            self._cache.move_to_end(key_id)
            while len(self._cache) > _CACHED_MAX:
                self._cache.popitem(last=False)
        return found

    async def _ask_once(self, key_id: str) -> KeyRecord | None:
        """Many calls with one key at once are one question to the database."""
        asking = self._asking.get(key_id)
        if asking is None:
            asking = asyncio.ensure_future(self._store.key(key_id))
            self._asking[key_id] = asking
            asking.add_done_callback(lambda _: self._asking.pop(key_id, None))
        return await asyncio.shield(asking)


def _missing_key() -> Unauthenticated:
    return Unauthenticated(
        "This call needs an API key.",
        reason="KEY_MISSING",
        remedy='Send metadata "authorization: Bearer gl_…".',
    )
