"""suppliers, commitments, tariffs, exchange: money besides run time."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Annotated

import typer
from gridlease.gateway.v1 import contract_pb2 as public
from gridlease.type.v1 import contract_pb2, money_pb2
from gridlease_kernel.faults import Invalid, Precondition
from gridlease_kernel.money import Money
from gridlease_kernel.units import parse_money
from gridlease_sdk.client import Client

from gridlease_cli import words
from gridlease_cli.app import options_of, reach
from gridlease_cli.output import show, show_rows

suppliers = typer.Typer(
    help="Partners whose nodes are rented out. Operators.", rich_markup_mode=None
)
commitments = typer.Typer(help="Capacity bought ahead, hour by hour.", rich_markup_mode=None)
tariffs = typer.Typer(help="Prices of egress, storage and energy.", rich_markup_mode=None)
_PER = {"egress": 2**30, "storage": 2**30 * 3_600, "energy": 3_600_000_000} | {
    "provision": 1,
    "run": 1,
}
_UNITS = {"egress": "GiB", "storage": "GiB-hour", "energy": "kWh", "provision": "ns", "run": "ns"}

_STATEMENT_PAGE = 5_000  # lines at once
Supplier = Annotated[str, typer.Argument(help="suppliers/{supplier}, or its id")]
RequestId = Annotated[str, typer.Option("--request-id", help="The same id does it once")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(suppliers, name="suppliers", invoke_without_command=True, callback=list_suppliers)
    app.add_typer(
        commitments, name="commitments", invoke_without_command=True, callback=list_commitments
    )
    app.add_typer(tariffs, name="tariffs", invoke_without_command=True, callback=list_tariffs)
    app.command("exchange")(exchange)


def list_suppliers(context: typer.Context) -> None:
    """Partners, with their terms and what they are owed."""
    if context.invoked_subcommand is not None:
        return
    options = options_of(context)

    async def work(client: Client) -> list[contract_pb2.Supplier]:
        return await client.list_suppliers()

    found = reach(options, work, operator=True)
    show_rows(options, found, _HEADS, [_supplier_row(it) for it in found])


@suppliers.command("create")
def create_supplier(
    context: typer.Context,
    supplier: Annotated[str, typer.Argument(help="Lower-case letters, digits and dashes")],
    name: Annotated[str, typer.Option(help="Name for people")] = "",
) -> None:
    """Name a partner."""
    options = options_of(context)

    async def work(client: Client) -> contract_pb2.Supplier:
        return await client.create_supplier(supplier, display_name=name)

    found = reach(options, work, operator=True)
    show(options, found, ["  ".join(_supplier_row(found))])


@suppliers.command("contract")
def contract(
    context: typer.Context,
    supplier: Supplier,
    share: Annotated[str, typer.Argument(help="Its share in percent, such as 70 or 72.5")],
    holdback: Annotated[str, typer.Option(help="Percent of that to keep back")] = "0",
    days: Annotated[int, typer.Option(min=0, max=3_650, help="For how many days")] = 30,
    request_id: RequestId = "",
) -> None:
    """New terms, for leases authorised from now on."""
    options = options_of(context)
    shares = _permyriad(share, "share"), _permyriad(holdback, "--holdback")

    async def work(client: Client) -> contract_pb2.Supplier:
        return await client.create_contract(
            _full(supplier),
            shares[0],
            holdback_permyriad=shares[1],
            holdback_days=days,
            request_id=request_id,
        )

    found = reach(options, work, operator=True)
    show(options, found, ["  ".join(_supplier_row(found))])


@suppliers.command("assign")
def assign(
    context: typer.Context,
    node: Annotated[str, typer.Argument(help="nodes/{node}, or its id")],
    supplier: Annotated[str, typer.Argument(help="Whose it is; empty = the platform's own")] = "",
    request_id: RequestId = "",
) -> None:
    """Say whose a node is, for leases authorised from now on."""
    options = options_of(context)
    name = node if "/" in node else f"nodes/{node}"

    async def work(client: Client) -> public.AssignNodeResponse:
        owner = _full(supplier) if supplier else ""
        return await client.assign_node(name, owner, request_id=request_id)

    found = reach(options, work, operator=True)
    show(options, found, [f"{found.node}  {found.supplier or 'the platform'}"])


@suppliers.command("statement")
def statement(
    context: typer.Context,
    supplier: Supplier,
    begin: Annotated[str, typer.Option("--from", help="Day, such as 2026-11-01")] = "",
    end: Annotated[str, typer.Option("--until", help="Day that is not in it any more")] = "",
    kind: Annotated[str, typer.Option("--format", help="text, json or csv")] = "text",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="To this file")] = None,
) -> None:
    """What a partner's nodes earned: each line of customers with its parts."""
    options = options_of(context)
    if kind not in ("text", "json", "csv"):
        raise _bad("--format", "Choose text, json or csv.")
    begin_ms = _moment_ms(begin, "--from") if begin else 0
    end_ms = _moment_ms(end, "--until") if end else 0

    async def work(client: Client) -> list[public.RenderStatementResponse]:
        pages: list[public.RenderStatementResponse] = []
        while not pages or pages[-1].next_page_token:
            token = pages[-1].next_page_token if pages else ""
            page = await client.render_statement(
                _full(supplier), begin_ms=begin_ms, end_ms=end_ms, file_format=kind,
                page_size=_STATEMENT_PAGE, page_token=token,
            )  # fmt: skip
            pages.append(page)
        return pages

    pages = reach(options, work, operator=True)
    content = _whole(kind, [it.content for it in pages])
    found = pages[-1]
    found.content = content
    if output is None:
        show(options, found, content.decode().splitlines())
        return
    try:
        output.write_bytes(content)
    except OSError as error:
        raise Precondition(
            f"{output} cannot be written: {error.strerror or error}",
            reason="FILE_UNWRITABLE",
            field="--output",
            remedy="Name a file in a folder that you may write.",
        ) from error
    show(options, found, [f"written to {output}: {found.totals.line_count} lines"])


@suppliers.command("pay")
def pay(
    context: typer.Context,
    supplier: Supplier,
    amount: Annotated[str, typer.Argument(help="Such as 100; empty = all that is owed")] = "",
    note: Annotated[str, typer.Option(help="For the books")] = "",
    request_id: RequestId = "",
) -> None:
    """Pay a partner what it is owed."""
    options = options_of(context)
    nano = parse_money(amount, "amount") if amount else 0

    async def work(client: Client) -> public.CreatePayoutResponse:
        return await client.create_payout(_full(supplier), nano, note=note, request_id=request_id)

    found = reach(options, work, operator=True)
    paid = words.money(found.amount_nano, found.supplier.currency)
    show(options, found, [f"paid {paid} to {found.supplier.name}"])


def list_commitments(context: typer.Context) -> None:
    """What was bought ahead, and what of it was used."""
    if context.invoked_subcommand is not None:
        return
    options = options_of(context)

    async def work(client: Client) -> list[contract_pb2.Commitment]:
        return await client.list_commitments()

    found = reach(options, work)
    heads = ("COMMITMENT", "CHIP", "FROM", "UNTIL", "AN HOUR", "HOURS", "USED", "FEES", "COVERED")
    show_rows(options, found, heads, [_commitment_row(it) for it in found])


@commitments.command("buy")
def buy(
    context: typer.Context,
    chip: Annotated[str, typer.Argument(help="Such as A100-80GB")],
    count: Annotated[float, typer.Argument(min=0.001, help="Devices, or CPU cores")],
    begin: Annotated[str, typer.Option("--from", help="Whole hour, UTC: 2026-12-01T08")],
    end: Annotated[str, typer.Option("--until", help="Whole hour, UTC")],
    site: Annotated[str, typer.Option(help="sites/{site}; empty = at any")] = "",
    request_id: RequestId = "",
) -> None:
    """Buy capacity ahead, at the reserved price in force."""
    options = options_of(context)
    begin_ms, end_ms = _moment_ms(begin, "--from"), _moment_ms(end, "--until")

    async def work(client: Client) -> contract_pb2.Commitment:
        return await client.create_commitment(
            chip, round(count * 1_000), begin_ms, end_ms, site=site, request_id=request_id
        )

    found = reach(options, work)
    show(options, found, ["  ".join(_commitment_row(found))])


def list_tariffs(context: typer.Context) -> None:
    """Prices of egress, storage and energy, every version."""
    if context.invoked_subcommand is not None:
        return
    options = options_of(context)

    async def work(client: Client) -> list[contract_pb2.Tariff]:
        return await client.list_tariffs()

    found = reach(options, work)
    heads = ("VERSION", "METER", "SITE", "PRICE", "MINIMUM", "FROM")
    show_rows(options, found, heads, [_tariff_row(it) for it in found])


@tariffs.command("set")
def set_tariff(
    context: typer.Context,
    meter: Annotated[
        str, typer.Argument(help="egress (GiB), storage (GiB-hour), energy (kWh); or run, at 0")
    ],
    price: Annotated[list[str], typer.Argument(help="PRICE, or tiers as ABOVE=PRICE, from 0 on")],
    minimum: Annotated[
        str, typer.Option(help="What a month, or for run a lease, costs at the least")
    ] = "0",
    site: Annotated[str, typer.Option(help="sites/{site}; empty = where no site has its own")] = "",
    pass_through: Annotated[
        bool, typer.Option("--pass-through", help="Energy at the site's own price")
    ] = False,
    request_id: RequestId = "",
) -> None:
    """A new price from now on. Operators."""
    options = options_of(context)
    if meter not in _PER:
        raise _bad("meter", f"Choose one of: {', '.join(_PER)}.")
    steps = [_step(it, _PER[meter]) for it in price]
    tariff = contract_pb2.Tariff(
        meter=meter,
        site=site,
        steps=steps,
        per=_PER[meter],
        minimum_nano=parse_money(minimum, "--minimum"),
        pass_through=pass_through,
    )

    async def work(client: Client) -> contract_pb2.Tariff:
        return await client.create_tariff(tariff, request_id=request_id)

    found = reach(options, work, operator=True)
    show(options, found, ["  ".join(_tariff_row(found))])


def exchange(
    context: typer.Context,
    tenant: Annotated[str, typer.Argument(help="tenants/{tenant}, or its id")],
    amount: Annotated[str, typer.Argument(help="How much came, such as 100")],
    currency: Annotated[str, typer.Argument(help="Of what came, such as EUR")],
    rate: Annotated[str, typer.Argument(help="One of it is: 1.0837, or 13/12")],
    note: Annotated[str, typer.Option(help="For the books: where the rate stands")] = "",
    request_id: RequestId = "",
) -> None:
    """Pay credit in for a tenant in another currency. Operators."""
    options = options_of(context)
    nano = parse_money(amount, "amount")
    name = tenant if "/" in tenant else f"tenants/{tenant}"
    fraction = _fraction(rate)

    async def work(client: Client) -> tuple[int, money_pb2.Balance]:
        return await client.create_exchange(
            name, nano, currency, fraction, note=note, request_id=request_id
        )

    credited, found = reach(options, work, operator=True)
    lines = [
        f"credited  {words.money(credited, found.currency)} for {Money(nano)} {currency}",
        f"posted    {words.money(found.posted_nano, found.currency)}",
        f"available {words.money(found.available_nano, found.currency)}",
    ]
    show(options, found, lines)


_HEADS = ("SUPPLIER", "NAME", "TERMS", "SHARE", "KEPT BACK", "PAYABLE", "HELD", "NODES")


def _supplier_row(it: contract_pb2.Supplier) -> tuple[str, ...]:
    return (
        it.name,
        it.display_name,
        f"v{it.contract_version}" if it.contract_version else "none",
        _percent(it.share_permyriad),
        f"{_percent(it.holdback_permyriad)}, {it.holdback_days} d",
        words.money(it.payable_nano, it.currency),
        words.money(it.holdback_nano, it.currency),
        str(len(it.nodes)),
    )


def _commitment_row(it: contract_pb2.Commitment) -> tuple[str, ...]:
    return (
        words.short(it.name),
        f"{words.milli(it.quantity_milli)} x {it.chip}",
        words.clock(it.begin_time),
        words.clock(it.end_time),
        words.money(it.rate_nano_per_hour, it.currency),
        str(it.hour_count),
        f"{it.used_permille / 10:.1f} %" if it.hour_count else "-",
        words.money(it.fee_nano, it.currency),
        words.money(it.cover_nano, it.currency),
    )


def _tariff_row(it: contract_pb2.Tariff) -> tuple[str, ...]:
    unit = _UNITS.get(it.meter, it.meter)
    steps = [
        f"{words.money(step.price_nano, it.currency)}/{unit}"
        + (f" above {step.above // max(1, it.per)}" if step.above else "")
        for step in it.steps
    ]
    return (
        str(it.version),
        it.meter,
        it.site or "any",
        "as the site pays" if it.pass_through else ", ".join(steps),
        words.money(it.minimum_nano, it.currency),
        words.clock(it.effective_time),
    )


def _whole(kind: str, pages: list[bytes]) -> bytes:
    """A statement's file from its pages: JSON has the lines and moves of all in one object."""
    if kind != "json":
        return b"".join(pages)
    told = [json.loads(it) for it in pages]
    whole = told[-1]
    for name in ("lines", "moves"):
        whole[name] = [it for page in told for it in page[name]]
    return f"{json.dumps(whole, indent=2, sort_keys=True, ensure_ascii=False)}\n".encode()


def _full(supplier: str) -> str:
    return supplier if "/" in supplier else f"suppliers/{supplier}"


def _percent(permyriad: int) -> str:
    return f"{permyriad / 100:g} %"


def _permyriad(text: str, field: str) -> int:
    """Percent, exactly, with at most two decimals."""
    whole, _, part = text.removesuffix("%").strip().partition(".")
    digits = part.ljust(2, "0")
    if not (whole.isdecimal() and digits.isdecimal() and len(digits) == 2):
        raise _bad(field, "Write a percentage such as 70 or 72.5.")
    found = int(whole) * 100 + int(digits)
    if found > 10_000:
        raise _bad(field, "At most 100 percent.")
    return found


def _fraction(text: str) -> tuple[int, int]:
    """A rate as a fraction: 1.0837 is 10837/10000."""
    above, slash, below = text.partition("/")
    whole, _, part = above.partition(".")
    digits = f"{whole}{part}"
    good = digits.isdecimal() and (below.isdecimal() if slash else True)
    if not good or int(digits) == 0 or (slash and (part or int(below) == 0)):
        raise _bad("rate", "Write it as 1.0837 or 13/12.")
    return (int(digits), int(below)) if slash else (int(digits), 10 ** len(part))


def _step(text: str, per: int) -> contract_pb2.TariffStep:
    above, equals, price = text.rpartition("=")
    if equals and not above.isdecimal():
        raise _bad("price", "Write tiers as ABOVE=PRICE, such as 0=0 100=0.08.")
    return contract_pb2.TariffStep(
        above=int(above or 0) * per, price_nano=parse_money(price, "price")
    )


def _moment_ms(text: str, field: str) -> int:
    try:
        found = datetime.datetime.fromisoformat(text)
    except ValueError as error:
        raise _bad(field, "Write it as 2026-12-01 or 2026-12-01T08:00.") from error
    if found.tzinfo is None:
        found = found.replace(tzinfo=datetime.UTC)
    return round(found.timestamp() * 1_000)


def _bad(field: str, remedy: str) -> Invalid:
    return Invalid(
        f"{field} is not understood.", reason="UNKNOWN_VALUE", field=field, remedy=remedy
    )
