"""nodes, offers."""

from __future__ import annotations

from typing import Annotated

import typer
from gridlease.gateway.v1 import gateway_pb2
from gridlease.type.v1 import fleet_pb2
from gridlease_kernel.units import parse_duration
from gridlease_sdk import where
from gridlease_sdk.client import Client

from gridlease_cli import capacity, words
from gridlease_cli.app import options_of, reach
from gridlease_cli.output import show, show_rows

nodes = typer.Typer(
    help="Nodes: list, add, cordon, drain, maintain, stand, remove. Operators.",
    rich_markup_mode=None,
    no_args_is_help=False,
)
Node = Annotated[str, typer.Argument(help="A node's name or id")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(nodes, name="nodes", invoke_without_command=True, callback=list_nodes)
    nodes.command("drain")(capacity.drain)
    nodes.command("stand")(capacity.stand)
    app.command("offers")(offers)


def list_nodes(context: typer.Context) -> None:
    """List nodes, what they have and what is free. Operators."""
    if context.invoked_subcommand is not None:
        return
    options = options_of(context)

    async def work(client: Client) -> list[fleet_pb2.Node]:
        return await client.list_nodes()

    found = reach(options, work, operator=True)
    heads = ("NODE", "SITE", "STATE", "CPU FREE", "MEMORY FREE", "DEVICES", "SANDBOX", "SEEN", "")
    show_rows(options, found, heads, [_row(node) for node in found])


@nodes.command("add")
def add(
    context: typer.Context,
    node_id: Annotated[str, typer.Argument(help="The new node's id; empty = made up")] = "",
    site: Annotated[str, typer.Option(help="sites/{site}")] = "",
    ttl: Annotated[str, typer.Option(help="How long the token is good for")] = "1h",
) -> None:
    """Make a one-time token, and print the one line to run on the new host."""
    options = options_of(context)
    ttl_ms = parse_duration(ttl, "--ttl")

    async def work(client: Client) -> gateway_pb2.CreateNodeTokenResponse:
        return await client.create_node_token(node_id=node_id, site=site, ttl_ms=ttl_ms)

    found = reach(options, work, operator=True)
    place = where.find(
        options.environ,
        endpoint=options.endpoint,
        api_key=options.api_key,
        client_file=options.client_path,
        operator=True,
    )
    show(options, found, [f"./dev agent --join {place.endpoint} --token {found.token}"])


@nodes.command("show")
def show_node(context: typer.Context, node: Node) -> None:
    """One node, with its devices."""
    options = options_of(context)

    async def work(client: Client) -> fleet_pb2.Node:
        return await client.get_node(_name(node))

    found = reach(options, work, operator=True)
    has = found.inventory
    lines = [
        f"node      {found.name} {words.mark(has.emulated)}".rstrip(),
        f"state     {words.node_state(found.state)}, seen {words.ago(found.seen_time)} ago",
        f"host      {has.hostname} ({has.architecture}, Linux {has.kernel})",
        f"cpu       {words.milli(has.cpu_milli)} cores, {has.cpu_model or has.cpu_chip}",
        f"memory    {words.size(has.memory_bytes)}, disk {words.size(has.disk_bytes)}",
        f"sandbox   {has.sandbox_runtime}",
    ]
    if found.cordon_note:
        lines.append(f"no work   {found.cordon_note}")
    if found.HasField("cordon_end_time"):
        lines.append(f"          until {words.clock(found.cordon_end_time)}")
    if has.burn_in_score:
        lines.append(f"burn-in   {has.burn_in_score} of 1000")
    if found.rack or found.rail:
        lines.append(f"stands    in rack {found.rack or '-'}, on rail {found.rail or '-'}")
    lines += [f"driver    {name} {version}" for name, version in sorted(has.drivers.items())]
    lines += [f"          not enforced: {limit}" for limit in has.unenforced]
    lines += [f"runtime   {name}" for name in has.runtimes]
    for device in has.devices:
        state = fleet_pb2.DeviceState.Name(device.state).removeprefix("DEVICE_STATE_").lower()
        holder = f"held by {device.lease}" if device.lease else "free"
        mark = f", {words.mark(True)}" if device.emulated else ""
        lines.append(f"device    {device.id}: {device.chip}, {state}, {holder}{mark}")
    show(options, found, lines)


@nodes.command("cordon")
def cordon(
    context: typer.Context,
    node: Node,
    note: Annotated[str, typer.Option(help="Why, for people")] = "",
    span: Annotated[str, typer.Option("--for", help="It ends by itself after, such as 2h")] = "",
) -> None:
    """Give the node no new work; what runs goes on."""
    for_ms = parse_duration(span, "--for") if span else 0
    _cordon(context, node, cordoned=True, note=note, for_ms=for_ms)


@nodes.command("maintain")
def maintain(
    context: typer.Context,
    node: Node,
    note: Annotated[str, typer.Option(help="Why, for people")],
    span: Annotated[str, typer.Option("--for", help="How long it takes, such as 2h")],
    notice: Annotated[str, typer.Option(help="Warning to each task; empty = each job's own")] = "",
) -> None:
    """Open a maintenance window: no new work, what runs is placed elsewhere; it ends by itself."""
    options = options_of(context)
    for_ms = parse_duration(span, "--for")
    notice_ms = parse_duration(notice, "--notice") if notice else 0

    async def work(client: Client) -> gateway_pb2.DrainNodeResponse:
        await client.cordon_node(_name(node), note=note, for_ms=for_ms)
        return await client.drain_node(_name(node), notice_ms=notice_ms, note=note)

    done = reach(options, work, operator=True)
    moved = f"{len(done.jobs)} jobs are placed elsewhere"
    show(options, done, [f"{done.node.name} {words.node_state(done.node.state)}, {moved}"])


@nodes.command("uncordon")
def uncordon(context: typer.Context, node: Node) -> None:
    """Give the node new work again."""
    _cordon(context, node, cordoned=False)


@nodes.command("remove")
def remove(context: typer.Context, node: Node) -> None:
    """Cut the node off now: its credential ends, and what runs there at its deadline."""
    options = options_of(context)

    async def work(client: Client) -> fleet_pb2.Node:
        return await client.revoke_node(_name(node))

    found = reach(options, work, operator=True)
    show(options, found, [f"{found.name} is cut off; it may join again by a new token"])


def offers(
    context: typer.Context,
    chip: Annotated[str, typer.Argument(help="Only this chip or family")] = "",
) -> None:
    """Chips to rent: what is free and what it costs."""
    options = options_of(context)

    async def work(client: Client) -> list[fleet_pb2.Offer]:
        return await client.list_offers(chip=chip)

    found = reach(options, work)
    rows = [
        (
            it.chip,
            words.short(it.site),
            words.tier(it.tier),
            f"{words.milli(it.free_milli)} of {words.milli(it.total_milli)}",
            words.size(it.memory_bytes) if it.memory_bytes else "-",
            words.money(it.price_nano_per_hour, it.currency),
            words.mark(it.emulated),
        )
        for it in found
    ]
    show_rows(options, found, ("CHIP", "SITE", "TIER", "FREE", "MEMORY", "AN HOUR", ""), rows)


def _cordon(
    context: typer.Context, node: str, *, cordoned: bool, note: str = "", for_ms: int = 0
) -> None:
    options = options_of(context)

    async def work(client: Client) -> fleet_pb2.Node:
        return await client.cordon_node(_name(node), cordoned=cordoned, note=note, for_ms=for_ms)

    found = reach(options, work, operator=True)
    show(options, found, [f"{found.name} {words.node_state(found.state)}"])


def _name(node: str) -> str:
    return node if "/" in node else f"nodes/{node}"


def _row(node: fleet_pb2.Node) -> tuple[str, ...]:
    has, held = node.inventory, node.allocated
    chips: dict[str, list[bool]] = {}
    for device in has.devices:
        chips.setdefault(device.chip, []).append(not device.lease)
    devices = ", ".join(f"{sum(free)}/{len(free)} {chip}" for chip, free in sorted(chips.items()))
    return (
        words.short(node.name),
        words.short(node.site),
        words.node_state(node.state),
        f"{words.milli(has.cpu_milli - held.cpu_milli)} of {words.milli(has.cpu_milli)}",
        words.size(max(0, has.memory_bytes - held.memory_bytes)),
        devices or "-",
        has.sandbox_runtime or "-",
        words.ago(node.seen_time),
        words.mark(has.emulated),
    )
