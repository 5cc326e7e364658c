"""quotas, shares, sites, reservations, drain: what operators promise and limit."""

from __future__ import annotations

import datetime
from typing import Annotated

import typer
from gridlease.gateway.v1 import gateway_pb2
from gridlease.type.v1 import capacity_pb2, fleet_pb2
from gridlease_kernel.clock import SystemClock
from gridlease_kernel.faults import Invalid
from gridlease_kernel.units import parse_duration, parse_money
from gridlease_sdk.client import Client

from gridlease_cli import words
from gridlease_cli.app import options_of, reach
from gridlease_cli.output import show, show_rows

quotas = typer.Typer(help="Quotas: what projects may hold.", rich_markup_mode=None)
shares = typer.Typer(help="Tenants' weights in fair sharing. Operators.", rich_markup_mode=None)
sites = typer.Typer(help="Sites: power, its price and carbon. Operators.", rich_markup_mode=None)
reservations = typer.Typer(help="Capacity promised for a time.", rich_markup_mode=None)
_MOST = 1_000_000_000

Project = Annotated[str, typer.Argument(help="projects/{project} or folders/{folder}")]
Chip = Annotated[str, typer.Option(help="Such as A100-80GB; empty = all accelerators together")]
Count = Annotated[float, typer.Option(min=0, help="Devices, or CPU cores")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(quotas, name="quotas", invoke_without_command=True, callback=list_quotas)
    app.add_typer(shares, name="shares", invoke_without_command=True, callback=list_shares)
    app.add_typer(sites, name="sites", invoke_without_command=True, callback=list_sites)
    app.add_typer(
        reservations, name="reservations", invoke_without_command=True, callback=list_reservations
    )
    app.command("drain")(drain)


def list_quotas(context: typer.Context) -> None:
    """List quotas of your project, with what they hold now; operators see all."""
    if context.invoked_subcommand is not None:
        return
    options = options_of(context)

    async def work(client: Client) -> list[capacity_pb2.Quota]:
        return await client.list_quotas()

    found = reach(options, work)
    heads = ("PROJECT", "CHIP", "HOLDS", "GUARANTEED", "LIMIT", "IN")
    show_rows(options, found, heads, [_quota_row(it) for it in found])


@quotas.command("set")
def set_quota(
    context: typer.Context,
    project: Project,
    chip: Chip = "",
    guaranteed: Count = 0,
    limit: Count = 0,
    parent: Annotated[str, typer.Option(help="folders/{folder} that it nests in")] = "",
) -> None:
    """Write a quota; limit and guarantee of 0 take it away. Operators."""
    options = options_of(context)
    quota = capacity_pb2.Quota(
        project=project,
        parent=parent,
        chip=chip,
        guaranteed_milli=_milli(guaranteed, "--guaranteed"),
        limit_milli=_milli(limit, "--limit"),
    )

    async def work(client: Client) -> capacity_pb2.Quota:
        return await client.set_quota(quota)

    found = reach(options, work, operator=True)
    show(options, found, ["  ".join(_quota_row(found))])


def list_shares(context: typer.Context) -> None:
    """List tenants' weights, and what they used lately. Operators."""
    if context.invoked_subcommand is not None:
        return
    options = options_of(context)

    async def work(client: Client) -> list[capacity_pb2.Share]:
        return await client.list_shares()

    found = reach(options, work, operator=True)
    rows = [(it.tenant, str(it.weight), f"{it.recent_device_hours:.1f}") for it in found]
    show_rows(options, found, ("TENANT", "WEIGHT", "LATELY (REFERENCE DEVICE-HOURS)"), rows)


@shares.command("set")
def set_share(
    context: typer.Context,
    tenant: Annotated[str, typer.Argument(help="tenants/{tenant}")],
    weight: Annotated[int, typer.Argument(min=1, max=1_000)],
) -> None:
    """Of two tenants, the one of twice the weight gets twice as much. Operators."""
    options = options_of(context)

    async def work(client: Client) -> capacity_pb2.Share:
        return await client.set_share(tenant, weight)

    found = reach(options, work, operator=True)
    show(options, found, [f"{found.tenant} weighs {found.weight}"])


def list_sites(context: typer.Context) -> None:
    """List sites. Operators."""
    if context.invoked_subcommand is not None:
        return
    options = options_of(context)

    async def work(client: Client) -> list[capacity_pb2.Site]:
        return await client.list_sites()

    found = reach(options, work, operator=True)
    heads = ("SITE", "NODES", "PUE", "CAP", "A KWH", "CO2 A KWH")
    show_rows(options, found, heads, [_site_row(it) for it in found])


@sites.command("set")
def set_site(
    context: typer.Context,
    site: Annotated[str, typer.Argument(help="A site's name or id")],
    pue: Annotated[float | None, typer.Option(min=1, max=5, help="Such as 1.25")] = None,
    cap_watts: Annotated[int | None, typer.Option(min=0, max=_MOST, help="0 = no limit")] = None,
    rack_cap: Annotated[list[str], typer.Option(help="RACK=WATTS; may be repeated")] = [],  # noqa: B006 - typer's way
    price: Annotated[str, typer.Option(help="A kWh: one price, or 24 with commas (UTC)")] = "",
    carbon: Annotated[str, typer.Option(help="Grams of CO2 a kWh: one, or 24 with commas")] = "",
) -> None:
    """Say what a site's power costs and how much there is; the rest stays. Operators."""
    options = options_of(context)
    name = site if "/" in site else f"sites/{site}"

    async def work(client: Client) -> capacity_pb2.Site:
        known = [it for it in await client.list_sites() if it.name == name]
        made = known[0] if known else capacity_pb2.Site(name=name)
        if pue is not None:
            made.pue_milli = round(pue * 1_000)
        if cap_watts is not None:
            made.cap_watts = cap_watts
        for given in rack_cap:
            rack, _, watts = given.partition("=")
            made.rack_cap_watts[rack] = _whole(watts, "--rack-cap")
        if price:
            made.price_nano_per_kwh[:] = [parse_money(it, "--price") for it in price.split(",")]
        if carbon:
            made.carbon_mg_per_kwh[:] = [_grams(it) for it in carbon.split(",")]
        return await client.set_site(made)

    found = reach(options, work, operator=True)
    show(options, found, ["  ".join(_site_row(found))])


def list_reservations(context: typer.Context) -> None:
    """List reservations of your project that have not ended; operators see all."""
    if context.invoked_subcommand is not None:
        return
    options = options_of(context)

    async def work(client: Client) -> list[capacity_pb2.Reservation]:
        return await client.list_reservations()

    found = reach(options, work)
    heads = ("RESERVATION", "PROJECT", "HOW MANY", "CHIP", "SITE", "FROM", "UNTIL")
    show_rows(options, found, heads, [_reservation_row(it) for it in found])


@reservations.command("create")
def create_reservation(
    context: typer.Context,
    project: Annotated[str, typer.Argument(help="projects/{project}")],
    chip: Annotated[str, typer.Argument(help="Such as H100-SXM")],
    count: Annotated[float, typer.Argument(min=0, help="Devices, or CPU cores")],
    begin: Annotated[str, typer.Option(help="When, such as 2027-01-31T08:00Z; empty = now")] = "",
    duration: Annotated[str, typer.Option("--for", help="For how long, such as 2d")] = "1d",
    site: Annotated[str, typer.Option(help="Only at this site")] = "",
    request_id: Annotated[str, typer.Option(help="The same id gives the same answer")] = "",
) -> None:
    """Promise capacity for a time, if there is that much. Operators."""
    options = options_of(context)
    made = capacity_pb2.Reservation(
        project=project,
        chip=chip,
        site=site if not site or "/" in site else f"sites/{site}",
        quantity_milli=_milli(count, "count"),
    )
    starts = _instant(begin)
    made.begin_time.FromDatetime(starts)
    length = datetime.timedelta(milliseconds=parse_duration(duration, "--for"))
    made.end_time.FromDatetime(starts + length)

    async def work(client: Client) -> capacity_pb2.Reservation:
        return await client.create_reservation(made, request_id=request_id)

    found = reach(options, work, operator=True)
    show(options, found, ["  ".join(_reservation_row(found))])


@reservations.command("cancel")
def cancel_reservation(
    context: typer.Context,
    reservation: Annotated[str, typer.Argument(help="A reservation's name or its last part")],
) -> None:
    """Give a reservation back; what runs under it goes on."""
    options = options_of(context)
    name = reservation if "/" in reservation else f"reservations/{reservation}"

    async def work(client: Client) -> capacity_pb2.Reservation:
        return await client.cancel_reservation(name)

    found = reach(options, work)
    show(options, found, [f"{found.name} is given back"])


def drain(
    context: typer.Context,
    node: Annotated[str, typer.Argument(help="A node's name or id")],
    notice: Annotated[str, typer.Option(help="Warning to each task; empty = each job's own")] = "",
    note: Annotated[str, typer.Option(help="Why, for the jobs' tenants")] = "",
) -> None:
    """Empty a node: no new work, and what runs there is placed elsewhere. Operators."""
    options = options_of(context)
    notice_ms = parse_duration(notice, "--notice") if notice else 0

    async def work(client: Client) -> gateway_pb2.DrainNodeResponse:
        name = node if "/" in node else f"nodes/{node}"
        return await client.drain_node(name, notice_ms=notice_ms, note=note)

    found = reach(options, work, operator=True)
    lines = [f"{found.node.name} {words.node_state(found.node.state)}"]
    lines += [f"{job} is told to end and to wait for another place" for job in found.jobs]
    show(options, found, lines)


def stand(
    context: typer.Context,
    node: Annotated[str, typer.Argument(help="A node's name or id")],
    rack: Annotated[str, typer.Option(help="Empty = what the node says itself")] = "",
    rail: Annotated[str, typer.Option(help="Empty = what the node says itself")] = "",
) -> None:
    """Say in which rack and on which network rail a node stands. Operators."""
    options = options_of(context)

    async def work(client: Client) -> fleet_pb2.Node:
        name = node if "/" in node else f"nodes/{node}"
        return await client.set_node_topology(name, rack=rack, rail=rail)

    found = reach(options, work, operator=True)
    lines = [f"{found.name} stands in rack {found.rack or '-'}, on rail {found.rail or '-'}"]
    show(options, found, lines)


def _quota_row(quota: capacity_pb2.Quota) -> tuple[str, ...]:
    return (
        quota.project,
        quota.chip or "all accelerators",
        words.milli(quota.used_milli),
        words.milli(quota.guaranteed_milli),
        words.milli(quota.limit_milli) if quota.limit_milli else "none",
        quota.parent or "-",
    )


def _site_row(site: capacity_pb2.Site) -> tuple[str, ...]:
    return (
        words.short(site.name),
        str(site.node_count),
        words.milli(site.pue_milli),
        f"{site.cap_watts} W" if site.cap_watts else "none",
        _hours([words.money(it) for it in site.price_nano_per_kwh]),
        _hours([f"{words.milli(it)} g" for it in site.carbon_mg_per_kwh]),
    )


def _hours(found: list[str]) -> str:
    return f"{found[0]} … by the hour" if len(found) > 1 else (found or ["-"])[0]


def _reservation_row(reservation: capacity_pb2.Reservation) -> tuple[str, ...]:
    return (
        words.short(reservation.name),
        words.short(reservation.project),
        words.milli(reservation.quantity_milli),
        reservation.chip,
        words.short(reservation.site) or "any",
        words.clock(reservation.begin_time),
        words.clock(reservation.end_time),
    )


def _instant(text: str) -> datetime.datetime:
    if not text:
        return SystemClock().wall()
    try:
        found = datetime.datetime.fromisoformat(text)
    except ValueError as error:
        raise Invalid(
            f"{text[:40]!r} is no time.",
            reason="BAD_TIME",
            field="--begin",
            remedy="Write it like 2027-01-31T08:00Z; without a zone it is this host's time.",
        ) from error
    return found.astimezone(datetime.UTC)


def _grams(text: str) -> int:
    """In milligrams."""
    try:
        return _milli(float(text), "--carbon")
    except ValueError as error:
        raise _no_number(text, "--carbon") from error


def _whole(text: str, field: str) -> int:
    if not text.isdecimal():
        raise _no_number(text, field)
    return int(text)


def _milli(count: float, field: str) -> int:
    if not 0 <= count <= _MOST:
        raise _no_number(str(count), field)
    return round(count * 1_000)


def _no_number(text: str, field: str) -> Invalid:
    return Invalid(
        f"{text[:40]!r} is no number for this.",
        reason="BAD_NUMBER",
        field=field,
        remedy="Write a number of at least 0.",
    )
