# ruff: noqa: ARG002, N802 - the generated base classes give names and arguments
"""FleetService: nodes and their tokens, for the gateway."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gridlease.scheduler.v1 import fleet_pb2, fleet_pb2_grpc
from gridlease.type.v1 import fleet_pb2 as type_fleet_pb2

from gridlease_scheduler.credential import Revoke
from gridlease_scheduler.domain.chips import Catalogue
from gridlease_scheduler.enrol import CreateToken, Enrol
from gridlease_scheduler.evict import Drain
from gridlease_scheduler.nodes import Fleet
from gridlease_scheduler.ports import NodeDetail
from gridlease_scheduler.sites import Sites
from gridlease_scheduler.wire import energy
from gridlease_scheduler.wire import nodes as wire

from . import pages


@dataclass(frozen=True, slots=True)
class FleetUses:
    """What the fleet service calls, and what nodes are told of the mesh."""

    fleet: Fleet
    sites: Sites
    catalogue: Catalogue
    create_token: CreateToken
    enrol: Enrol
    revoke: Revoke
    drain: Drain
    node_nats_url: str
    subject_prefix: str
    lost_after_ms: int


class FleetServicer(fleet_pb2_grpc.FleetServiceServicer):
    """Nodes and their tokens, for the gateway."""

    def __init__(self, uses: FleetUses) -> None:
        self._uses = uses

    def _node(self, detail: NodeDetail) -> type_fleet_pb2.Node:
        return wire.node(detail, self._uses.lost_after_ms)

    async def ListNodes(
        self, request: fleet_pb2.ListNodesRequest, context: Any
    ) -> fleet_pb2.ListNodesResponse:
        limit = pages.limit(request.page_size, 100, 1_000)
        return wire.listed(
            await self._uses.fleet.list(limit, request.page_token), limit, self._uses.lost_after_ms
        )

    async def GetNode(
        self, request: fleet_pb2.GetNodeRequest, context: Any
    ) -> fleet_pb2.GetNodeResponse:
        return fleet_pb2.GetNodeResponse(node=self._node(await self._uses.fleet.get(request.name)))

    async def ListStock(
        self, request: fleet_pb2.ListStockRequest, context: Any
    ) -> fleet_pb2.ListStockResponse:
        rows = await self._uses.fleet.stock()
        sites = (energy.site_energy(it.site) for it in await self._uses.sites.list())
        return fleet_pb2.ListStockResponse(
            offers=[wire.offer(each) for each in rows],
            chips=energy.draws((each.chip for each in rows), self._uses.catalogue),
            sites=[it for it in sites if it is not None],
        )

    async def CreateNodeToken(
        self, request: fleet_pb2.CreateNodeTokenRequest, context: Any
    ) -> fleet_pb2.CreateNodeTokenResponse:
        made = await self._uses.create_token(request.node_id, request.site, request.ttl_ms)
        answer = fleet_pb2.CreateNodeTokenResponse(token=made.token, node=f"nodes/{made.node_id}")
        answer.expire_time.FromDatetime(made.expires_at)
        return answer

    async def EnrolNode(
        self, request: fleet_pb2.EnrolNodeRequest, context: Any
    ) -> fleet_pb2.EnrolNodeResponse:
        enrolled = await self._uses.enrol(request.token, request.public_key)
        return fleet_pb2.EnrolNodeResponse(
            node_id=enrolled.node_id,
            nats_url=self._uses.node_nats_url,
            credential_jwt=enrolled.credential,
            subject_prefix=self._uses.subject_prefix,
        )

    async def CordonNode(
        self, request: fleet_pb2.CordonNodeRequest, context: Any
    ) -> fleet_pb2.CordonNodeResponse:
        node = await self._uses.fleet.cordon(
            request.name, cordoned=request.cordoned, note=request.note, for_ms=request.for_ms
        )
        return fleet_pb2.CordonNodeResponse(node=self._node(node))

    async def DrainNode(
        self, request: fleet_pb2.DrainNodeRequest, context: Any
    ) -> fleet_pb2.DrainNodeResponse:
        done = await self._uses.drain(request.name, request.notice_ms, request.note)
        return fleet_pb2.DrainNodeResponse(node=self._node(done.node), jobs=done.jobs)

    async def SetNodeTopology(
        self, request: fleet_pb2.SetNodeTopologyRequest, context: Any
    ) -> fleet_pb2.SetNodeTopologyResponse:
        node = await self._uses.fleet.stand(request.name, request.rack, request.rail)
        return fleet_pb2.SetNodeTopologyResponse(node=self._node(node))

    async def RevokeNode(
        self, request: fleet_pb2.RevokeNodeRequest, context: Any
    ) -> fleet_pb2.RevokeNodeResponse:
        return fleet_pb2.RevokeNodeResponse(node=self._node(await self._uses.revoke(request.name)))
