"""prices, priorities: the price book."""

from __future__ import annotations

import datetime
from typing import Annotated, TypeAlias

import typer
from gridlease.type.v1 import job_pb2, money_pb2
from gridlease_kernel.faults import Invalid
from gridlease_kernel.units import parse_money
from gridlease_sdk.client import Client
from gridlease_sdk.jobfile import TIERS

from gridlease_cli import words
from gridlease_cli.app import options_of, reach
from gridlease_cli.jobs import Tier
from gridlease_cli.output import show, show_rows

prices = typer.Typer(help="Prices in force; set makes a new one.", rich_markup_mode=None)
priorities = typer.Typer(
    help="What a job's priority makes of its price; set makes a new table.", rich_markup_mode=None
)
History: TypeAlias = Annotated[bool, typer.Option("--history", help="Every version ever")]
AsOf: TypeAlias = Annotated[
    str, typer.Option("--as-of", help="In force then, such as 2026-12-01T08:00; UTC")
]
RecordedAsOf: TypeAlias = Annotated[
    str, typer.Option("--recorded-as-of", help="As the book stood then")
]
Since: TypeAlias = Annotated[str, typer.Option("--from", help="In force from then on; empty = now")]
Correction: TypeAlias = Annotated[
    bool,
    typer.Option("--correction", help="Put the past right; nothing that was charged changes"),
]
Site: TypeAlias = Annotated[
    str, typer.Option("--site", help="sites/{site}, or its id; empty = wherever it has no own")
]
RequestId: TypeAlias = Annotated[str, typer.Option(help="The same id writes once")]
_HEADS = ("CHIP", "TIER", "SITE", "AN HOUR", "VERSION", "FROM", "UNTIL", "WRITTEN", "NOTE")
_BAND_HEADS = ("VERSION", "PRIORITY", "TIMES", "FROM", "UNTIL", "WRITTEN", "NOTE")
_PERMILLE_DIGITS = 3


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(prices, name="prices", invoke_without_command=True, callback=_prices)
    app.add_typer(priorities, name="priorities", invoke_without_command=True, callback=_priorities)


def _prices(context: typer.Context, history: History = False) -> None:
    """Prices in force."""
    if context.invoked_subcommand is None:
        list_prices(context, history)


@prices.command("list")
def list_prices(
    context: typer.Context,
    history: History = False,
    as_of: AsOf = "",
    recorded_as_of: RecordedAsOf = "",
) -> None:
    """Prices in force at one time, as the book stood at another; both are now if not named."""
    options = options_of(context)
    valid_ms = _moment_ms(as_of, "--as-of")
    recorded_ms = _moment_ms(recorded_as_of, "--recorded-as-of")

    async def work(client: Client) -> list[money_pb2.Price]:
        return await client.list_prices(
            history=history, as_of_ms=valid_ms, recorded_as_of_ms=recorded_ms
        )

    found = reach(options, work)
    show_rows(options, found, _HEADS, [_price_row(price) for price in found])


@prices.command("set")
def set_price(
    context: typer.Context,
    chip: Annotated[str, typer.Argument(help="Such as A100-80GB")],
    price: Annotated[str, typer.Argument(help="Of one device or core for an hour")],
    tier: Tier = "on-demand",
    site: Site = "",
    since: Since = "",
    correction: Correction = False,
    request_id: RequestId = "",
) -> None:
    """A new price, from now on or from a time to come; or a correction. Operators."""
    nano = parse_money(price, "price")
    _write_price(context, chip, nano, tier, site, since, request_id, correction=correction)


@prices.command("withdraw")
def withdraw(
    context: typer.Context,
    chip: Annotated[str, typer.Argument(help="Such as A100-80GB")],
    tier: Tier = "on-demand",
    site: Site = "",
    since: Since = "",
    request_id: RequestId = "",
) -> None:
    """Take a price back: at a site, that of everywhere holds again. Operators."""
    _write_price(context, chip, 0, tier, site, since, request_id, withdrawn=True)


def _priorities(context: typer.Context, history: History = False) -> None:
    """The table of priorities in force."""
    if context.invoked_subcommand is None:
        list_priorities(context, history)


@priorities.command("list")
def list_priorities(
    context: typer.Context,
    history: History = False,
    as_of: AsOf = "",
    recorded_as_of: RecordedAsOf = "",
) -> None:
    """The table in force at one time, as the book stood at another; none = all pay alike."""
    options = options_of(context)
    valid_ms = _moment_ms(as_of, "--as-of")
    recorded_ms = _moment_ms(recorded_as_of, "--recorded-as-of")

    async def work(client: Client) -> list[money_pb2.PriorityMultipliers]:
        return await client.list_priority_multipliers(
            history=history, as_of_ms=valid_ms, recorded_as_of_ms=recorded_ms
        )

    found = reach(options, work)
    rows = [row for table in found for row in _band_rows(table)]
    show_rows(options, found, _BAND_HEADS, rows)


@priorities.command("set")
def set_priorities(
    context: typer.Context,
    bands: Annotated[list[str], typer.Argument(help="PRIORITY=TIMES, such as 0=0.8 50=1 80=1.5")],
    since: Since = "",
    correction: Correction = False,
    request_id: RequestId = "",
) -> None:
    """A new table: from each priority on, by what prices are multiplied. Operators."""
    options = options_of(context)
    parsed = [_band(it) for it in bands]
    effective_ms = _moment_ms(since, "--from")

    async def work(client: Client) -> money_pb2.PriorityMultipliers:
        return await client.create_priority_multipliers(
            parsed, effective_ms=effective_ms, correction=correction, request_id=request_id
        )

    found = reach(options, work, operator=True)
    show(options, found, ["  ".join(row) for row in _band_rows(found)])


def _write_price(
    context: typer.Context,
    chip: str,
    nano: int,
    tier: str,
    site: str,
    since: str,
    request_id: str,
    *,
    correction: bool = False,
    withdrawn: bool = False,
) -> None:
    options = options_of(context)
    if tier not in TIERS:
        raise Invalid(
            f"There is no tier {tier!r}.",
            reason="UNKNOWN_VALUE",
            field="--tier",
            remedy=f"Choose one of: {', '.join(TIERS)}.",
        )
    where = site if not site or "/" in site else f"sites/{site}"
    effective_ms = _moment_ms(since, "--from")

    async def work(client: Client) -> money_pb2.Price:
        return await client.create_price(
            chip,
            nano,
            job_pb2.Tier.ValueType(TIERS[tier]),
            site=where,
            effective_ms=effective_ms,
            correction=correction,
            withdrawn=withdrawn,
            request_id=request_id,
        )

    found = reach(options, work, operator=True)
    show(options, found, ["  ".join(it for it in _price_row(found) if it)])


def _price_row(price: money_pb2.Price) -> tuple[str, ...]:
    return (
        price.chip,
        words.tier(price.tier),
        words.short(price.site),
        words.money(price.price_nano_per_hour, price.currency),
        str(price.version),
        *_times(price, "withdrawn" if price.withdrawn else ""),
    )


def _band_rows(table: money_pb2.PriorityMultipliers) -> list[tuple[str, ...]]:
    ends = [it.above - 1 for it in table.bands[1:]] + [100]
    return [
        (
            str(table.version),
            f"{band.above}-{end}",
            f"{band.permille // 1_000}.{band.permille % 1_000:03d}",
            *_times(table, ""),
        )
        for band, end in zip(table.bands, ends, strict=True)
    ]


def _times(it: money_pb2.Price | money_pb2.PriorityMultipliers, note: str) -> tuple[str, ...]:
    return (
        words.clock(it.effective_time),
        words.clock(it.end_time) if it.HasField("end_time") else "",
        words.clock(it.create_time),
        note or ("correction" if it.correction else ""),
    )


def _band(text: str) -> tuple[int, int]:
    """``PRIORITY=TIMES`` as (priority, thousandths)."""
    above, _, times = text.partition("=")
    whole, _, part = times.partition(".")
    if not above.isdecimal() or not whole.isdecimal() or len(part) > _PERMILLE_DIGITS:
        raise _bad("bands", "Write each as PRIORITY=TIMES, such as 80=1.5; thousandths at most.")
    if part and not part.isdecimal():
        raise _bad("bands", "Write each as PRIORITY=TIMES, such as 80=1.5.")
    return int(above), int(whole) * 1_000 + int(part.ljust(_PERMILLE_DIGITS, "0"))


def _moment_ms(text: str, field: str) -> int | None:
    """A time, UTC where it names no zone; None where there is none."""
    if not text:
        return None
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
