# ruff: noqa: ARG002 - each method takes the request of its name
"""CapacityService: quotas, shares, sites, links and reservations."""

from __future__ import annotations

from google.protobuf.message import Message
from gridlease.gateway.v1 import gateway_pb2 as pb
from gridlease.scheduler.v1 import capacity_pb2
from gridlease_kernel.faults import Missing
from gridlease_kernel.ids import Ids

from gridlease_gateway.calls import Call
from gridlease_gateway.domain import names
from gridlease_gateway.domain.keys import Caller, Role
from gridlease_gateway.inside import Inside
from gridlease_gateway.ports import AccessStore


class Capacity:
    """The methods of CapacityService."""

    def __init__(self, inside: Inside, access: AccessStore, ids: Ids) -> None:
        self._inside = inside
        self._access = access
        self._ids = ids

    async def list_quotas(self, call: Call, request: pb.ListQuotasRequest) -> Message:
        inner = capacity_pb2.ListQuotasRequest(project=_project(call.caller, request.project))
        answer = await self._inside.ask(
            self._inside.capacity.ListQuotas, inner, call.left_s(), capacity_pb2.ListQuotasResponse
        )
        return pb.ListQuotasResponse(quotas=answer.quotas)

    async def set_quota(self, call: Call, request: pb.SetQuotaRequest) -> Message:
        inner = capacity_pb2.SetQuotaRequest(quota=request.quota)
        answer = await self._inside.ask(
            self._inside.capacity.SetQuota, inner, call.left_s(), capacity_pb2.SetQuotaResponse
        )
        return pb.SetQuotaResponse(quota=answer.quota)

    async def list_shares(self, call: Call, request: pb.ListSharesRequest) -> Message:
        inner = capacity_pb2.ListSharesRequest()
        answer = await self._inside.ask(
            self._inside.capacity.ListShares, inner, call.left_s(), capacity_pb2.ListSharesResponse
        )
        return pb.ListSharesResponse(shares=answer.shares)

    async def set_share(self, call: Call, request: pb.SetShareRequest) -> Message:
        inner = capacity_pb2.SetShareRequest(share=request.share)
        answer = await self._inside.ask(
            self._inside.capacity.SetShare, inner, call.left_s(), capacity_pb2.SetShareResponse
        )
        return pb.SetShareResponse(share=answer.share)

    async def list_sites(self, call: Call, request: pb.ListSitesRequest) -> Message:
        inner = capacity_pb2.ListSitesRequest()
        answer = await self._inside.ask(
            self._inside.capacity.ListSites, inner, call.left_s(), capacity_pb2.ListSitesResponse
        )
        return pb.ListSitesResponse(sites=answer.sites)

    async def set_site(self, call: Call, request: pb.SetSiteRequest) -> Message:
        inner = capacity_pb2.SetSiteRequest(site=request.site)
        answer = await self._inside.ask(
            self._inside.capacity.SetSite, inner, call.left_s(), capacity_pb2.SetSiteResponse
        )
        return pb.SetSiteResponse(site=answer.site)

    async def list_links(self, call: Call, request: pb.ListLinksRequest) -> Message:
        inner = capacity_pb2.ListLinksRequest()
        answer = await self._inside.ask(
            self._inside.capacity.ListLinks, inner, call.left_s(), capacity_pb2.ListLinksResponse
        )
        return pb.ListLinksResponse(links=answer.links)

    async def set_link(self, call: Call, request: pb.SetLinkRequest) -> Message:
        inner = capacity_pb2.SetLinkRequest(link=request.link)
        answer = await self._inside.ask(
            self._inside.capacity.SetLink, inner, call.left_s(), capacity_pb2.SetLinkResponse
        )
        return pb.SetLinkResponse(link=answer.link)

    async def list_reservations(self, call: Call, request: pb.ListReservationsRequest) -> Message:
        inner = capacity_pb2.ListReservationsRequest(project=_project(call.caller, request.project))
        answer = await self._inside.ask(
            self._inside.capacity.ListReservations,
            inner,
            call.left_s(),
            capacity_pb2.ListReservationsResponse,
        )
        return pb.ListReservationsResponse(reservations=answer.reservations)

    async def create_reservation(self, call: Call, request: pb.CreateReservationRequest) -> Message:
        project = request.reservation.project
        known = names.id_of(project, "projects")
        if known is None or await self._access.tenant_of(known) is None:
            raise names.no_project(project, "reservation.project")
        inner = capacity_pb2.CreateReservationRequest(
            reservation=request.reservation,
            request_id=request.request_id or self._ids.new("rq"),
        )
        answer = await self._inside.ask(
            self._inside.capacity.CreateReservation,
            inner,
            call.left_s(),
            capacity_pb2.CreateReservationResponse,
        )
        return pb.CreateReservationResponse(reservation=answer.reservation)

    async def cancel_reservation(self, call: Call, request: pb.CancelReservationRequest) -> Message:
        inner = capacity_pb2.CancelReservationRequest(
            name=request.name, project=_project(call.caller, "")
        )
        try:
            answer = await self._inside.ask(
                self._inside.capacity.CancelReservation,
                inner,
                call.left_s(),
                capacity_pb2.CancelReservationResponse,
            )
        except Missing as error:
            raise names.no_reservation(request.name) from error
        return pb.CancelReservationResponse(reservation=answer.reservation)


def _project(caller: Caller, asked: str) -> str:
    """A tenant's own project; an operator's choice, empty = all.

    Raises:
        Missing: PROJECT_NOT_FOUND, of a tenant that names another's.
    """
    if caller.role is Role.OPERATOR:
        return asked
    if asked not in ("", caller.project):
        raise names.no_project(asked, "project")
    return caller.own_project()
