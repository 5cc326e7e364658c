"""links: what operators say of the lines between nodes, racks and sites."""

from __future__ import annotations

import enum
from typing import Annotated

import typer
from gridlease.type.v1 import capacity_pb2
from gridlease_sdk.client import Client
from gridlease_sdk.placement import parse_mbps, parse_micros

from gridlease_cli.app import options_of, reach
from gridlease_cli.output import show, show_rows

links = typer.Typer(help="Links between places. Operators.", rich_markup_mode=None)

Name = Annotated[str, typer.Argument(help="A link's name or its last part")]
Place = Annotated[str, typer.Argument(help="nodes/NODE, racks/SITE/RACK or sites/SITE")]


class Kind(enum.StrEnum):
    """What a link is made of."""

    ETHERNET = "ethernet"
    RDMA = "rdma"
    ROCE = "roce"
    WAN = "wan"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(links, name="links", invoke_without_command=True, callback=list_links)


def list_links(context: typer.Context) -> None:
    """List links, with what is promised of them. Operators."""
    if context.invoked_subcommand is not None:
        return
    options = options_of(context)

    async def work(client: Client) -> list[capacity_pb2.Link]:
        return await client.list_links()

    found = reach(options, work, operator=True)
    heads = ("LINK", "FROM", "TO", "KIND", "PROMISED", "OF", "ONE WAY", "STATE")
    show_rows(options, found, heads, [_row(it) for it in found])


@links.command("set")
def set_link(
    context: typer.Context,
    link: Name,
    a: Place,
    b: Place,
    capacity: Annotated[str, typer.Option(help="May be promised either way, such as 100Gbit")],
    latency: Annotated[str, typer.Option(help="One way, such as 50us")] = "0us",
    kind: Annotated[Kind, typer.Option(help="What it is made of")] = Kind.ETHERNET,
    down: Annotated[bool, typer.Option("--down", help="Nothing is sent over it now")] = False,
) -> None:
    """Say what joins two places; a job's guarantees are kept on each link. Operators."""
    options = options_of(context)
    made = capacity_pb2.Link(
        name=_name(link),
        a=a,
        b=b,
        kind=capacity_pb2.LinkKind.Value(f"LINK_KIND_{kind.name}"),
        capacity_mbps=parse_mbps(capacity, "--capacity"),
        latency_us=parse_micros(latency, "--latency"),
        down=down,
    )

    async def work(client: Client) -> capacity_pb2.Link:
        return await client.set_link(made)

    found = reach(options, work, operator=True)
    show(options, found, ["  ".join(_row(found))])


@links.command("remove")
def remove_link(context: typer.Context, link: Name) -> None:
    """Take a link away; leases that it carried are told of in events. Operators."""
    options = options_of(context)

    async def work(client: Client) -> capacity_pb2.Link:
        return await client.set_link(capacity_pb2.Link(name=_name(link)))

    found = reach(options, work, operator=True)
    show(options, found, [f"{found.name} is taken away"])


def _name(link: str) -> str:
    return link if "/" in link else f"links/{link}"


def _row(link: capacity_pb2.Link) -> tuple[str, ...]:
    kind = capacity_pb2.LinkKind.Name(link.kind).removeprefix("LINK_KIND_").lower()
    return (
        link.name.removeprefix("links/"),
        link.a,
        link.b,
        kind,
        f"{link.promised_mbps} Mbit/s",
        f"{link.capacity_mbps} Mbit/s",
        f"{link.latency_us} us",
        "down" if link.down else "up",
    )
