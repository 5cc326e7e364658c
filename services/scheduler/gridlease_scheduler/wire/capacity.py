"""Quotas, shares, sites, links and reservations on the wire."""

from __future__ import annotations

from gridlease.type.v1 import capacity_pb2

from gridlease_scheduler import names
from gridlease_scheduler.domain.links.network import Link, LinkKind
from gridlease_scheduler.domain.snapshot import Quota, Reservation, Share, Site
from gridlease_scheduler.operators import LinkRow, QuotaRow, ReservationRow, SiteRow

_MILLI_MS_PER_HOUR = 1_000 * 3_600_000


def quota_of(message: capacity_pb2.Quota) -> Quota:
    """A quota to write."""
    return Quota(
        message.project,
        message.parent,
        message.chip,
        message.guaranteed_milli,
        message.limit_milli,
    )


def quota(row: QuotaRow) -> capacity_pb2.Quota:
    """A quota with what it holds now."""
    value = row.quota
    return capacity_pb2.Quota(
        project=value.project,
        parent=value.parent,
        chip=value.chip,
        guaranteed_milli=value.guaranteed_milli,
        limit_milli=value.limit_milli,
        used_milli=row.used_milli,
    )


def share(value: Share) -> capacity_pb2.Share:
    """A tenant's claim."""
    hours = value.used / _MILLI_MS_PER_HOUR
    return capacity_pb2.Share(tenant=value.tenant, weight=value.weight, recent_device_hours=hours)


def site_of(message: capacity_pb2.Site) -> Site:
    """A site to write."""
    return Site(
        name=names.site_id(message.name),
        pue_milli=message.pue_milli or 1_000,
        cap_watts=message.cap_watts,
        rack_cap_watts=tuple(sorted(message.rack_cap_watts.items())),
        price_nano_per_kwh=tuple(message.price_nano_per_kwh),
        carbon_mg_per_kwh=tuple(message.carbon_mg_per_kwh),
    )


def site(row: SiteRow) -> capacity_pb2.Site:
    """A site with how many nodes stand there."""
    value = row.site
    message = capacity_pb2.Site(
        name=f"sites/{value.name}",
        pue_milli=value.pue_milli,
        cap_watts=value.cap_watts,
        rack_cap_watts=dict(value.rack_cap_watts),
        price_nano_per_kwh=value.price_nano_per_kwh,
        carbon_mg_per_kwh=value.carbon_mg_per_kwh,
        node_count=row.nodes,
    )
    message.create_time.FromDatetime(row.created_at)
    return message


def link_of(message: capacity_pb2.Link) -> Link:
    """A link to write."""
    kind = message.kind or capacity_pb2.LINK_KIND_ETHERNET
    return Link(
        link_id=names.link_id(message.name),
        a=message.a,
        b=message.b,
        capacity_mbit=message.capacity_mbps,
        latency_us=message.latency_us,
        kind=LinkKind(capacity_pb2.LinkKind.Name(kind).removeprefix("LINK_KIND_").lower()),
        up=not message.down,
    )


def link(row: LinkRow) -> capacity_pb2.Link:
    """A link with what is promised of it."""
    message = taken(row.link)
    message.promised_mbps = row.promised_mbit
    message.create_time.FromDatetime(row.created_at)
    return message


def taken(value: Link) -> capacity_pb2.Link:
    """A link that is on no record."""
    return capacity_pb2.Link(
        name=f"links/{value.link_id}",
        a=value.a,
        b=value.b,
        kind=capacity_pb2.LinkKind.Value(f"LINK_KIND_{value.kind.name}"),
        capacity_mbps=value.capacity_mbit,
        latency_us=value.latency_us,
        down=not value.up,
    )


def reservation_of(message: capacity_pb2.Reservation) -> Reservation:
    """A reservation to make."""
    return Reservation(
        name="",
        project=message.project,
        chip=message.chip,
        site=names.site_id(message.site) if message.site else "",
        quantity_milli=message.quantity_milli,
        begins_ms=message.begin_time.ToMilliseconds(),
        ends_ms=message.end_time.ToMilliseconds(),
    )


def reservation(row: ReservationRow) -> capacity_pb2.Reservation:
    """A reservation on record."""
    value = row.reservation
    message = capacity_pb2.Reservation(
        name=value.name,
        project=value.project,
        chip=value.chip,
        site=f"sites/{value.site}" if value.site else "",
        quantity_milli=value.quantity_milli,
    )
    message.begin_time.FromMilliseconds(value.begins_ms)
    message.end_time.FromMilliseconds(value.ends_ms)
    message.create_time.FromDatetime(row.created_at)
    if row.cancelled_at is not None:
        message.cancel_time.FromDatetime(row.cancelled_at)
    return message
