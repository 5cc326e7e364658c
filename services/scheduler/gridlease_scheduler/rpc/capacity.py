# ruff: noqa: ARG002, N802 - the generated base classes give names and arguments
"""CapacityService: quotas, shares, sites, links and reservations, for the gateway."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gridlease.scheduler.v1 import capacity_pb2, capacity_pb2_grpc

from gridlease_scheduler.links import Links
from gridlease_scheduler.quotas import Quotas
from gridlease_scheduler.reservations import Reservations
from gridlease_scheduler.sites import Sites
from gridlease_scheduler.wire import capacity as wire


@dataclass(frozen=True, slots=True)
class CapacityUses:
    """What the capacity service calls."""

    quotas: Quotas
    sites: Sites
    links: Links
    reservations: Reservations


class CapacityServicer(capacity_pb2_grpc.CapacityServiceServicer):
    """What operators promise and limit."""

    def __init__(self, uses: CapacityUses) -> None:
        self._uses = uses

    async def ListQuotas(
        self, request: capacity_pb2.ListQuotasRequest, context: Any
    ) -> capacity_pb2.ListQuotasResponse:
        rows = await self._uses.quotas.list(request.project)
        return capacity_pb2.ListQuotasResponse(quotas=[wire.quota(row) for row in rows])

    async def SetQuota(
        self, request: capacity_pb2.SetQuotaRequest, context: Any
    ) -> capacity_pb2.SetQuotaResponse:
        row = await self._uses.quotas.set(wire.quota_of(request.quota))
        return capacity_pb2.SetQuotaResponse(quota=wire.quota(row))

    async def ListShares(
        self, request: capacity_pb2.ListSharesRequest, context: Any
    ) -> capacity_pb2.ListSharesResponse:
        rows = await self._uses.quotas.shares()
        return capacity_pb2.ListSharesResponse(shares=[wire.share(row) for row in rows])

    async def SetShare(
        self, request: capacity_pb2.SetShareRequest, context: Any
    ) -> capacity_pb2.SetShareResponse:
        row = await self._uses.quotas.set_share(request.share.tenant, request.share.weight)
        return capacity_pb2.SetShareResponse(share=wire.share(row))

    async def ListSites(
        self, request: capacity_pb2.ListSitesRequest, context: Any
    ) -> capacity_pb2.ListSitesResponse:
        rows = await self._uses.sites.list()
        return capacity_pb2.ListSitesResponse(sites=[wire.site(row) for row in rows])

    async def SetSite(
        self, request: capacity_pb2.SetSiteRequest, context: Any
    ) -> capacity_pb2.SetSiteResponse:
        row = await self._uses.sites.set(wire.site_of(request.site))
        return capacity_pb2.SetSiteResponse(site=wire.site(row))

    async def ListLinks(
        self, request: capacity_pb2.ListLinksRequest, context: Any
    ) -> capacity_pb2.ListLinksResponse:
        rows = await self._uses.links.list()
        return capacity_pb2.ListLinksResponse(links=[wire.link(row) for row in rows])

    async def SetLink(
        self, request: capacity_pb2.SetLinkRequest, context: Any
    ) -> capacity_pb2.SetLinkResponse:
        wanted = wire.link_of(request.link)
        row = await self._uses.links.set(wanted)
        answer = wire.taken(wanted) if row is None else wire.link(row)
        return capacity_pb2.SetLinkResponse(link=answer)

    async def ListReservations(
        self, request: capacity_pb2.ListReservationsRequest, context: Any
    ) -> capacity_pb2.ListReservationsResponse:
        rows = await self._uses.reservations.list(request.project)
        answer = [wire.reservation(row) for row in rows]
        return capacity_pb2.ListReservationsResponse(reservations=answer)

    async def CreateReservation(
        self, request: capacity_pb2.CreateReservationRequest, context: Any
    ) -> capacity_pb2.CreateReservationResponse:
        wanted = wire.reservation_of(request.reservation)
        row = await self._uses.reservations.create(wanted, request.request_id)
        return capacity_pb2.CreateReservationResponse(reservation=wire.reservation(row))

    async def CancelReservation(
        self, request: capacity_pb2.CancelReservationRequest, context: Any
    ) -> capacity_pb2.CancelReservationResponse:
        row = await self._uses.reservations.cancel(request.name, request.project)
        return capacity_pb2.CancelReservationResponse(reservation=wire.reservation(row))
