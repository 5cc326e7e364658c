# ruff: noqa: ARG002, N802 - the generated base classes give names and arguments
"""SyncService: what nodes ask. Who asks is in the subject that the broker let it use."""

from __future__ import annotations

from typing import Any

from gridlease.scheduler.v1 import sync_pb2, sync_pb2_grpc
from gridlease_kernel.faults import Forbidden
from gridlease_mesh.context import caller_node

from gridlease_scheduler.credential import Renew
from gridlease_scheduler.inventory import ReportInventory
from gridlease_scheduler.preload import Preloads
from gridlease_scheduler.sync import Sync
from gridlease_scheduler.wire import leases as wire
from gridlease_scheduler.wire import nodes
from gridlease_scheduler.wire.preload import preload


class SyncServicer(sync_pb2_grpc.SyncServiceServicer):
    """What nodes ask. Who asks is in the subject that the broker let it use."""

    def __init__(
        self,
        sync: Sync,
        report: ReportInventory,
        renew: Renew,
        start_by_ms: int,
        preloads: Preloads,
    ) -> None:
        self._sync = sync
        self._preloads = preloads
        self._report = report
        self._renew = renew
        self._start_by_ms = start_by_ms

    async def SyncNode(
        self, request: sync_pb2.SyncNodeRequest, context: Any
    ) -> sync_pb2.SyncNodeResponse:
        told = wire.observation(_node(context), request)
        answer = wire.desired(await self._sync(told), self._start_by_ms)
        answer.preload.extend(preload(each) for each in self._preloads.of_node(told.node_id))
        return answer

    async def ReportInventory(
        self, request: sync_pb2.ReportInventoryRequest, context: Any
    ) -> sync_pb2.ReportInventoryResponse:
        site = await self._report(_node(context), nodes.inventory(request.inventory))
        return sync_pb2.ReportInventoryResponse(site=f"sites/{site}")

    async def RenewCredential(
        self, request: sync_pb2.RenewCredentialRequest, context: Any
    ) -> sync_pb2.RenewCredentialResponse:
        renewed = await self._renew(_node(context))
        return sync_pb2.RenewCredentialResponse(
            credential_jwt=renewed.credential, valid_for_ms=renewed.valid_for_ms
        )


def _node(context: Any) -> str:
    node = caller_node(context)
    if node is None:
        raise Forbidden(
            "Only nodes may call this.",
            reason="NOT_A_NODE",
            remedy="Call it with a node's own credential.",
        )
    return node
