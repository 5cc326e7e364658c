"""What a client does with quotas, shares, sites, links and reservations."""

from __future__ import annotations

from gridlease.gateway.v1 import gateway_pb2 as pb
from gridlease.type.v1 import capacity_pb2
from gridlease_kernel.ids import RandomIds

from gridlease_sdk.channel import Connection


class CapacityCalls:
    """The part of ``Client`` about what operators promise and limit."""

    _on: Connection
    _ids: RandomIds

    async def list_quotas(self, *, project: str = "") -> list[capacity_pb2.Quota]:
        """Quotas of the key's project; an operator's of one, or of all."""
        request = pb.ListQuotasRequest(project=project)
        answer = await self._on.ask(self._on.capacity.ListQuotas, request, pb.ListQuotasResponse)
        return list(answer.quotas)

    async def set_quota(self, quota: capacity_pb2.Quota) -> capacity_pb2.Quota:
        """Write a quota; limit and guarantee of 0 take it away. Operators."""
        request = pb.SetQuotaRequest(quota=quota)
        return (await self._on.ask(self._on.capacity.SetQuota, request, pb.SetQuotaResponse)).quota

    async def list_shares(self) -> list[capacity_pb2.Share]:
        """Tenants' weights, and what they used lately. Operators."""
        request = pb.ListSharesRequest()
        answer = await self._on.ask(self._on.capacity.ListShares, request, pb.ListSharesResponse)
        return list(answer.shares)

    async def set_share(self, tenant: str, weight: int) -> capacity_pb2.Share:
        """Write a tenant's weight. Operators."""
        share = capacity_pb2.Share(tenant=tenant, weight=weight)
        request = pb.SetShareRequest(share=share)
        return (await self._on.ask(self._on.capacity.SetShare, request, pb.SetShareResponse)).share

    async def list_sites(self) -> list[capacity_pb2.Site]:
        """Sites with their power, prices and carbon. Operators."""
        request = pb.ListSitesRequest()
        answer = await self._on.ask(self._on.capacity.ListSites, request, pb.ListSitesResponse)
        return list(answer.sites)

    async def set_site(self, site: capacity_pb2.Site) -> capacity_pb2.Site:
        """Write a site, whole. Operators."""
        request = pb.SetSiteRequest(site=site)
        return (await self._on.ask(self._on.capacity.SetSite, request, pb.SetSiteResponse)).site

    async def list_links(self) -> list[capacity_pb2.Link]:
        """Links between places, with what is promised of them. Operators."""
        request = pb.ListLinksRequest()
        answer = await self._on.ask(self._on.capacity.ListLinks, request, pb.ListLinksResponse)
        return list(answer.links)

    async def set_link(self, link: capacity_pb2.Link) -> capacity_pb2.Link:
        """Write a link, whole; a capacity of 0 takes it away. Operators."""
        request = pb.SetLinkRequest(link=link)
        return (await self._on.ask(self._on.capacity.SetLink, request, pb.SetLinkResponse)).link

    async def list_reservations(self, *, project: str = "") -> list[capacity_pb2.Reservation]:
        """Those that have not ended, of the key's project; an operator's of one, or of all."""
        request = pb.ListReservationsRequest(project=project)
        answer = await self._on.ask(
            self._on.capacity.ListReservations, request, pb.ListReservationsResponse
        )
        return list(answer.reservations)

    async def create_reservation(
        self, reservation: capacity_pb2.Reservation, *, request_id: str = ""
    ) -> capacity_pb2.Reservation:
        """Promise capacity for a time, if there is that much. Operators."""
        request = pb.CreateReservationRequest(
            reservation=reservation, request_id=request_id or self._ids.new("rq")
        )
        answer = await self._on.ask(
            self._on.capacity.CreateReservation, request, pb.CreateReservationResponse
        )
        return answer.reservation

    async def cancel_reservation(self, name: str) -> capacity_pb2.Reservation:
        """Give a reservation back."""
        request = pb.CancelReservationRequest(name=name)
        answer = await self._on.ask(
            self._on.capacity.CancelReservation, request, pb.CancelReservationResponse
        )
        return answer.reservation
