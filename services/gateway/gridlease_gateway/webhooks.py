"""Sends events to webhooks: in order, at least once, under the same id, with bounded patience."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from google.protobuf.json_format import MessageToDict
from gridlease.type.v1 import fleet_pb2
from gridlease_kernel.clock import Clock
from gridlease_kernel.faults import Fault

from gridlease_gateway.domain.webhooks import MOST_TRIES, pause_s, signature, wanted
from gridlease_gateway.event_feed import ROOMS, EventFeed
from gridlease_gateway.ports import Again, Dead, Hook, Poster, Sent, WebhookStore

_LOG = logging.getLogger(__name__)
_AT_ONCE: Final = 8
_BATCH_S: Final = 40.0  # a batch ends by time, well before the claim does
_CLAIM_S: Final = 90.0
_PAGE: Final = 200
_IDLE_S: Final = 2.0
_MOST_AGAIN: Final = 100  # events sent again in one batch


class Deliverer:
    """The loop; any number of gateways may run one."""

    def __init__(self, feed: EventFeed, store: WebhookStore, poster: Poster, clock: Clock) -> None:
        self._feed = feed
        self._store = store
        self._poster = poster
        self._clock = clock

    async def run(self) -> None:
        """Send for ever; outlives the database's and the rooms' absence."""
        while True:
            try:
                sent = await self.once()
            except Fault as fault:
                _LOG.warning("webhooks wait: %s", fault)
                sent = 0
            except Exception:  # noqa: BLE001 - one bad event must not end the loop for all
                _LOG.exception("webhooks failed")
                sent = 0
            if not sent:
                await asyncio.sleep(_IDLE_S)

    async def once(self) -> int:
        """Sends what is due; how many events were settled, one way or the other."""
        hooks = await self._store.claim(_AT_ONCE, _CLAIM_S)
        counts = await asyncio.gather(*(self._serve(hook) for hook in hooks))
        return sum(counts)

    async def _serve(self, hook: Hook) -> int:
        """One webhook's next events, one after another: that is their order."""
        loop = asyncio.get_running_loop()
        until, settled = loop.time() + _BATCH_S, 0
        pause = _IDLE_S
        try:
            for room, event in await self._next(hook):
                if loop.time() >= until:
                    pause = 0.0
                    break
                after = _settled(hook, room, event)
                settled += 1
                if not _concerns(hook, event):
                    hook = after
                    continue
                hook, rest_s = await self._send(hook, after, Sent(room, event.sequence), event)
                if rest_s:
                    pause = float(rest_s)
                    break
                if not await self._store.move(hook):
                    return settled  # removed meanwhile
            if not hook.failures:
                settled += await self._send_again(hook, until)
        except Fault as fault:
            _LOG.warning("a webhook waits: %s", fault, extra={"webhook": hook.id})
        await self._store.move(hook, pause_s=pause, release=True)
        return settled

    async def _next(self, hook: Hook) -> Sequence[tuple[str, fleet_pb2.Event]]:
        found: list[tuple[str, fleet_pb2.Event]] = []
        for room, after in zip(ROOMS, (hook.event_after, hook.notice_after), strict=True):
            found += [(room, it) for it in await self._feed.after(hook, room, after, _PAGE)]
        return found

    async def _send(
        self, hook: Hook, after: Hook, sent: Sent, event: fleet_pb2.Event
    ) -> tuple[Hook, int]:
        """The hook as it stands now, and how long to rest; 0 = the event is settled."""
        error = await self._post(hook, sent, event)
        if not error:
            return after, 0
        failed = replace(hook, failures=hook.failures + 1, last_error=error)
        if failed.failures < MOST_TRIES:
            return failed, pause_s(failed.failures)
        _LOG.error("a webhook's event is given up", extra={"webhook": hook.id})
        given_up = replace(after, last_error=error)
        await self._store.move(given_up, dead=Dead(sent, event.type, failed.failures, error))
        return given_up, 0

    async def _send_again(self, hook: Hook, until: float) -> int:
        """Sends what was asked for again, each event by itself; how many were settled."""
        settled = 0
        for it in await self._store.due_again(hook.id, _MOST_AGAIN):
            if asyncio.get_running_loop().time() >= until:
                break
            event = await self._feed.one(hook, it.sent)
            if event is None:
                gone = Dead(it.sent, "", it.failures, "the event is no longer kept")
                await self._store.done_again(hook.id, it.sent, gone)
                continue
            error = await self._post(hook, it.sent, event)
            if error and it.failures + 1 < MOST_TRIES:
                failed = Again(it.sent, it.failures + 1)
                await self._store.put_off(hook.id, failed, pause_s(failed.failures))
                break  # whoever refuses one is not asked for the next at once
            dead = Dead(it.sent, event.type, it.failures + 1, error) if error else None
            await self._store.done_again(hook.id, it.sent, dead)
            settled += 1
        return settled

    async def _post(self, hook: Hook, sent: Sent, event: fleet_pb2.Event) -> str:
        """Why it was not taken; empty = it was."""
        body = json.dumps(_plain(event, sent.message_id), ensure_ascii=True).encode()
        stamp = int(self._clock.wall().timestamp())
        keys = [hook.secret] + ([hook.old_secret] if hook.old_secret is not None else [])
        headers = {
            "webhook-id": sent.message_id,
            "webhook-timestamp": str(stamp),
            "webhook-signature": " ".join(
                signature(key, sent.message_id, stamp, body) for key in keys
            ),
        }
        try:
            await self._poster.post(hook.url, headers, body)
        except Fault as fault:
            return fault.message[:200]
        return ""


def _settled(hook: Hook, room: str, event: fleet_pb2.Event) -> Hook:
    if room == "scheduler":
        return replace(hook, event_after=event.sequence, failures=0, last_error="")
    return replace(hook, notice_after=event.sequence, failures=0, last_error="")


def _concerns(hook: Hook, event: fleet_pb2.Event) -> bool:
    """Only what happened since the webhook was made is sent."""
    since_ms = int(hook.create_time.timestamp() * 1_000)
    return event.time.ToMilliseconds() >= since_ms and wanted(hook.types, event.type)


def _plain(event: fleet_pb2.Event, message_id: str) -> dict[str, Any]:
    found: dict[str, Any] = MessageToDict(event, preserving_proto_field_name=True)
    return {"id": message_id, "type": event.type, "data": found}
