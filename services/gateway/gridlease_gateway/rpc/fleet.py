"""FleetService: what there is to rent, and who joins."""

from __future__ import annotations

import asyncio

from google.protobuf.message import Message
from gridlease.gateway.v1 import gateway_pb2 as pb
from gridlease.scheduler.v1 import fleet_pb2
from gridlease.type.v1 import fleet_pb2 as types
from gridlease.type.v1 import job_pb2 as job_types
from gridlease_kernel.faults import Missing

from gridlease_gateway.budget import Prices
from gridlease_gateway.calls import Call
from gridlease_gateway.domain import names, offers
from gridlease_gateway.inside import Inside


class Fleet:
    """The methods of FleetService."""

    def __init__(self, inside: Inside, prices: Prices) -> None:
        self._inside = inside
        self._prices = prices

    async def list_nodes(self, call: Call, request: pb.ListNodesRequest) -> Message:
        inner = fleet_pb2.ListNodesRequest(
            page_size=request.page_size, page_token=request.page_token
        )
        answer = await self._inside.ask(
            self._inside.fleet.ListNodes, inner, call.left_s(), fleet_pb2.ListNodesResponse
        )
        return pb.ListNodesResponse(nodes=answer.nodes, next_page_token=answer.next_page_token)

    async def get_node(self, call: Call, request: pb.GetNodeRequest) -> Message:
        inner = fleet_pb2.GetNodeRequest(name=request.name)
        try:
            answer = await self._inside.ask(
                self._inside.fleet.GetNode, inner, call.left_s(), fleet_pb2.GetNodeResponse
            )
        except Missing as error:
            raise names.no_node(request.name) from error
        return pb.GetNodeResponse(node=answer.node)

    async def list_offers(self, call: Call, request: pb.ListOffersRequest) -> Message:
        stock, prices = await asyncio.gather(
            self._prices.stock(call.left_s()), self._prices.in_force(call.left_s())
        )
        found = offers.on_offer(stock, prices, request.chip)
        return pb.ListOffersResponse(offers=[_encode(it) for it in found])

    async def create_node_token(self, call: Call, request: pb.CreateNodeTokenRequest) -> Message:
        inner = fleet_pb2.CreateNodeTokenRequest(
            node_id=request.node_id, site=request.site, ttl_ms=request.ttl_ms
        )
        # A retry may leave an unused token behind; it ends by itself.
        answer = await self._inside.ask(
            self._inside.fleet.CreateNodeToken,
            inner,
            call.left_s(),
            fleet_pb2.CreateNodeTokenResponse,
        )
        return pb.CreateNodeTokenResponse(
            token=answer.token, node=answer.node, expire_time=answer.expire_time
        )

    async def enrol_node(self, call: Call, request: pb.EnrolNodeRequest) -> Message:
        inner = fleet_pb2.EnrolNodeRequest(token=request.token, public_key=request.public_key)
        answer = await self._inside.ask(
            self._inside.fleet.EnrolNode, inner, call.left_s(), fleet_pb2.EnrolNodeResponse
        )
        return pb.EnrolNodeResponse(
            node_id=answer.node_id,
            nats_url=answer.nats_url,
            credential_jwt=answer.credential_jwt,
            subject_prefix=answer.subject_prefix,
        )

    async def cordon_node(self, call: Call, request: pb.CordonNodeRequest) -> Message:
        inner = fleet_pb2.CordonNodeRequest(
            name=request.name,
            cordoned=request.cordoned,
            note=request.note,
            for_ms=request.for_ms,
        )
        try:
            answer = await self._inside.ask(
                self._inside.fleet.CordonNode, inner, call.left_s(), fleet_pb2.CordonNodeResponse
            )
        except Missing as error:
            raise names.no_node(request.name) from error
        return pb.CordonNodeResponse(node=answer.node)

    async def drain_node(self, call: Call, request: pb.DrainNodeRequest) -> Message:
        inner = fleet_pb2.DrainNodeRequest(
            name=request.name, notice_ms=request.notice_ms, note=request.note
        )
        try:
            answer = await self._inside.ask(
                self._inside.fleet.DrainNode, inner, call.left_s(), fleet_pb2.DrainNodeResponse
            )
        except Missing as error:
            raise names.no_node(request.name) from error
        return pb.DrainNodeResponse(node=answer.node, jobs=answer.jobs)

    async def set_node_topology(self, call: Call, request: pb.SetNodeTopologyRequest) -> Message:
        inner = fleet_pb2.SetNodeTopologyRequest(
            name=request.name, rack=request.rack, rail=request.rail
        )
        try:
            answer = await self._inside.ask(
                self._inside.fleet.SetNodeTopology,
                inner,
                call.left_s(),
                fleet_pb2.SetNodeTopologyResponse,
            )
        except Missing as error:
            raise names.no_node(request.name) from error
        return pb.SetNodeTopologyResponse(node=answer.node)

    async def revoke_node(self, call: Call, request: pb.RevokeNodeRequest) -> Message:
        inner = fleet_pb2.RevokeNodeRequest(name=request.name)
        try:
            answer = await self._inside.ask(
                self._inside.fleet.RevokeNode, inner, call.left_s(), fleet_pb2.RevokeNodeResponse
            )
        except Missing as error:
            raise names.no_node(request.name) from error
        return pb.RevokeNodeResponse(node=answer.node)


def _encode(offer: offers.Offer) -> types.Offer:
    return types.Offer(
        chip=offer.stock.chip,
        site=offer.stock.site,
        tier=job_types.Tier.ValueType(offer.price.tier),
        total_milli=offer.stock.total_milli,
        free_milli=offer.stock.free_milli,
        price_nano_per_hour=offer.price.price_nano_per_hour,
        currency=offer.price.currency,
        memory_bytes=offer.stock.memory_bytes,
        emulated=offer.stock.emulated,
    )
