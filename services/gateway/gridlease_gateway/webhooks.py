"""Sends events to webhooks: in order, at least once, under the same id, with bounded patience."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from google.protobuf.json_format import MessageToDict
from gridlease.billing.v1 import report_pb2
from gridlease.scheduler.v1 import job_pb2
from gridlease.type.v1 import fleet_pb2
from gridlease_kernel.clock import Clock
from gridlease_kernel.faults import Fault

from gridlease_gateway.domain.webhooks import MOST_TRIES, pause_s, signature, wanted
from gridlease_gateway.inside import Inside
from gridlease_gateway.ports import Hook, Poster, WebhookStore

_LOG = logging.getLogger(__name__)
_AT_ONCE: Final = 8
_BATCH_S: Final = 40.0  # a batch ends by time, well before the claim does
_CLAIM_S: Final = 90.0
_PAGE: Final = 200
_IDLE_S: Final = 2.0
_ASK_S: Final = 10.0


class Deliverer:
    """The loop; any number of gateways may run one."""

    def __init__(self, inside: Inside, store: WebhookStore, poster: Poster, clock: Clock) -> None:
        self._inside = inside
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
                hook, rest_s = await self._send(hook, after, f"{room}-{event.sequence}", event)
                if rest_s:
                    pause = float(rest_s)
                    break
                if not await self._store.move(hook):
                    return settled  # removed meanwhile
        except Fault as fault:
            _LOG.warning("a webhook waits: %s", fault, extra={"webhook": hook.id})
        await self._store.move(hook, pause_s=pause, release=True)
        return settled

    async def _next(self, hook: Hook) -> Sequence[tuple[str, fleet_pb2.Event]]:
        project = f"projects/{hook.project}"
        told = await self._inside.ask(
            self._inside.jobs.ListEvents,
            job_pb2.ListEventsRequest(
                project=project, after_sequence=hook.event_after, page_size=_PAGE
            ),
            _ASK_S,
            job_pb2.ListEventsResponse,
        )
        noticed = await self._inside.ask(
            self._inside.reports.ListNotices,
            report_pb2.ListNoticesRequest(
                tenant=f"tenants/{hook.tenant}",
                project=project,
                after_sequence=hook.notice_after,
                page_size=_PAGE,
            ),
            _ASK_S,
            report_pb2.ListNoticesResponse,
        )
        found = [("scheduler", it) for it in told.events]
        return found + [("billing", it) for it in noticed.events]

    async def _send(
        self, hook: Hook, after: Hook, message_id: str, event: fleet_pb2.Event
    ) -> tuple[Hook, int]:
        """The hook as it stands now, and how long to rest; 0 = the event is settled."""
        body = json.dumps(_plain(event, message_id), ensure_ascii=True).encode()
        stamp = int(self._clock.wall().timestamp())
        headers = {
            "webhook-id": message_id,
            "webhook-timestamp": str(stamp),
            "webhook-signature": signature(hook.secret, message_id, stamp, body),
        }
        try:
            await self._poster.post(hook.url, headers, body)
        except Fault as fault:
            failed = replace(hook, failures=hook.failures + 1, last_error=fault.message[:200])
            if failed.failures < MOST_TRIES:
                return failed, pause_s(failed.failures)
            _LOG.error("a webhook's event is given up", extra={"webhook": hook.id})
            given_up = replace(after, last_error=failed.last_error)
            await self._store.move(given_up, dead=1)
            return given_up, 0
        return after, 0


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
