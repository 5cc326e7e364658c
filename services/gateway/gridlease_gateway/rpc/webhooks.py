"""ReportService and WebhookService: the webhooks of the key's project."""

from __future__ import annotations

import secrets

from google.protobuf.message import Message
from gridlease.gateway.v1 import contract_pb2
from gridlease.gateway.v1 import gateway_pb2 as pb
from gridlease.type.v1 import report_pb2
from gridlease_kernel.faults import Exhausted, Invalid
from gridlease_kernel.ids import Ids

from gridlease_gateway.calls import Call
from gridlease_gateway.domain import names
from gridlease_gateway.domain.keys import Caller, Role
from gridlease_gateway.domain.webhooks import secret_text, target_of, wanted
from gridlease_gateway.event_feed import ROOMS, EventFeed
from gridlease_gateway.ports import Dead, Hook, NewHook, Sent, WebhookStore

_MOST = 20  # of one project
_SECRET_BYTES = 32
_MOST_AGAIN = 10_000  # events of one replay
_DEFAULT_PAGE = 100
_LARGEST_PAGE = 1_000
_LAST = 2**62


class Webhooks:
    """Makes, lists and ends them."""

    def __init__(self, store: WebhookStore, feed: EventFeed, ids: Ids, *, local: bool) -> None:
        self._store = store
        self._feed = feed
        self._ids = ids
        self._local = local

    async def create_webhook(self, call: Call, request: pb.CreateWebhookRequest) -> Message:
        project = call.caller.own_project().removeprefix("projects/")
        target_of(request.url, local=self._local)
        secret = secrets.token_bytes(_SECRET_BYTES)
        new = NewHook(self._ids.new("wh"), project, request.url, tuple(request.types), secret)
        hook = await self._store.add(new, _MOST)
        if hook is None:
            raise Exhausted(
                f"This project has {_MOST} webhooks.",
                reason="TOO_MANY_WEBHOOKS",
                remedy="Delete one: gridlease webhooks rm NAME.",
            )
        return pb.CreateWebhookResponse(webhook=_shape(hook), secret=secret_text(secret))

    async def list_webhooks(self, call: Call, _request: pb.ListWebhooksRequest) -> Message:
        project = call.caller.own_project().removeprefix("projects/")
        found = await self._store.of_project(project)
        return pb.ListWebhooksResponse(webhooks=[_shape(it) for it in found])

    async def delete_webhook(self, call: Call, request: pb.DeleteWebhookRequest) -> Message:
        project = call.caller.own_project().removeprefix("projects/")
        hook = names.id_of(request.name, "webhooks")
        if hook is None or not await self._store.remove(hook, project):
            raise names.no_webhook(request.name)
        return pb.DeleteWebhookResponse()

    async def create_webhook_secret(
        self, call: Call, request: contract_pb2.CreateWebhookSecretRequest
    ) -> Message:
        hook = await self._known(call.caller, request.name)
        secret = secrets.token_bytes(_SECRET_BYTES)
        until = await self._store.renew(hook.id, secret, request.overlap_ms)
        answer = contract_pb2.CreateWebhookSecretResponse(
            webhook=_shape(hook), secret=secret_text(secret)
        )
        answer.old_until.FromDatetime(until)
        return answer

    async def create_webhook_replay(
        self, call: Call, request: contract_pb2.CreateWebhookReplayRequest
    ) -> Message:
        hook = await self._known(call.caller, request.name)
        answer = contract_pb2.CreateWebhookReplayResponse()
        if request.message_id:
            room, _, number = request.message_id.partition("-")
            events = [Sent(room, int(number))]
            if await self._feed.one(hook, events[0]) is None:
                raise names.no_event(request.message_id)
        else:
            if not request.HasField("start_time"):
                raise Invalid(
                    "Which events?",
                    reason="REPLAY_NAMES_NOTHING",
                    field="message_id",
                    remedy="Name the id of one, or the time from which on they are sent again.",
                )
            ends = request.HasField("end_time")
            end_ms = request.end_time.ToMilliseconds() if ends else _LAST
            events, rest_ms = await self._of_time(hook, request.start_time.ToMilliseconds(), end_ms)
            if rest_ms is not None:
                answer.next_start_time.FromMilliseconds(rest_ms)
        answer.waiting_count = await self._store.ask_again(hook.id, events)
        return answer

    async def _of_time(
        self, hook: Hook, start_ms: int, end_ms: int
    ) -> tuple[list[Sent], int | None]:
        """Events of a time that were sent before, at most so many; the time of what is left."""
        found: list[tuple[int, Sent]] = []
        for room, last in zip(ROOMS, (hook.event_after, hook.notice_after), strict=True):
            after = await self._feed.first_since(hook, room, start_ms, last)
            count = 0
            while count <= _MOST_AGAIN:
                events = await self._feed.after(hook, room, after, _LARGEST_PAGE)
                mine = [
                    it
                    for it in events
                    if it.sequence <= last and start_ms <= it.time.ToMilliseconds() < end_ms
                ]
                kept = [it for it in mine if wanted(hook.types, it.type)]
                found += [(it.time.ToMilliseconds(), Sent(room, it.sequence)) for it in kept]
                count += len(kept)
                if len(mine) < len(events) or len(events) < _LARGEST_PAGE:
                    break
                after = events[-1].sequence
        found.sort(key=lambda it: (it[0], it[1].room, it[1].sequence))
        rest = found[_MOST_AGAIN][0] if len(found) > _MOST_AGAIN else None
        return [sent for _, sent in found[:_MOST_AGAIN]], rest

    async def list_dead_letters(
        self, call: Call, request: contract_pb2.ListDeadLettersRequest
    ) -> Message:
        project = _project(call.caller)
        hook = (await self._known(call.caller, request.name)).id if request.name else ""
        size = min(request.page_size or _DEFAULT_PAGE, _LARGEST_PAGE)
        token = request.page_token
        if token and not (token.isascii() and token.isdigit() and len(token) < len(str(_LAST))):
            raise Invalid(
                "That is no page token.",
                reason="PAGE_TOKEN_MALFORMED",
                field="page_token",
                remedy="Send the next_page_token of the last answer, unchanged.",
            )
        found = await self._store.dead(project, hook, int(token or _LAST), size + 1)
        more = str(found[size - 1].id) if len(found) > size else ""
        return contract_pb2.ListDeadLettersResponse(
            letters=[_letter(it) for it in found[:size]], next_page_token=more
        )

    async def _known(self, caller: Caller, name: str) -> Hook:
        """The caller's webhook of that name; an operator's may be anybody's."""
        hook = names.id_of(name, "webhooks")
        found = None if hook is None else await self._store.one(hook, _project(caller))
        if found is None:
            raise names.no_webhook(name)
        return found


def _project(caller: Caller) -> str:
    if caller.role is Role.OPERATOR:
        return ""
    return caller.own_project().removeprefix("projects/")


def _letter(it: Dead) -> report_pb2.DeadLetter:
    letter = report_pb2.DeadLetter(
        webhook=f"webhooks/{it.webhook}",
        project=f"projects/{it.project}",
        message_id=it.sent.message_id,
        type=it.type,
        last_error=it.last_error,
        tries=it.tries,
    )
    if it.time is not None:
        letter.time.FromDatetime(it.time)
    if it.taken_time is not None:
        letter.taken_time.FromDatetime(it.taken_time)
    return letter


def _shape(hook: Hook) -> report_pb2.Webhook:
    shaped = report_pb2.Webhook(
        name=f"webhooks/{hook.id}",
        project=f"projects/{hook.project}",
        url=hook.url,
        types=hook.types,
        delivered_sequence=hook.event_after,
        failures=hook.failures,
        last_error=hook.last_error,
        dead_count=hook.dead_count,
    )
    shaped.create_time.FromDatetime(hook.create_time)
    return shaped
