"""ReportService, the webhooks of the key's project."""

from __future__ import annotations

import secrets

from google.protobuf.message import Message
from gridlease.gateway.v1 import gateway_pb2 as pb
from gridlease.type.v1 import report_pb2
from gridlease_kernel.faults import Exhausted
from gridlease_kernel.ids import Ids

from gridlease_gateway.calls import Call
from gridlease_gateway.domain import names
from gridlease_gateway.domain.webhooks import secret_text, target_of
from gridlease_gateway.ports import Hook, NewHook, WebhookStore

_MOST = 20  # of one project
_SECRET_BYTES = 32


class Webhooks:
    """Makes, lists and ends them."""

    def __init__(self, store: WebhookStore, ids: Ids, *, local: bool) -> None:
        self._store = store
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
