"""taxes …: legal entities, tenants' tax profiles, and the tax table."""

from __future__ import annotations

import datetime
from typing import Annotated

import typer
from gridlease.type.v1 import money_pb2
from gridlease_kernel.faults import Invalid
from gridlease_sdk.client import Client

from gridlease_cli import words
from gridlease_cli.app import options_of, reach
from gridlease_cli.output import show, show_rows

taxes = typer.Typer(
    help="Who issues invoices, to whom, at which tax.", no_args_is_help=True, rich_markup_mode=None
)
Country = Annotated[str, typer.Option(help="Two letters, such as DE")]
TaxId = Annotated[str, typer.Option(help="Tax number, checked before")]
Address = Annotated[str, typer.Option(help="Postal address")]
DisplayName = Annotated[str, typer.Option("--name", help="As it stands on invoices")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(taxes, name="taxes")


@taxes.command("profile")
def profile(context: typer.Context) -> None:
    """What your tenant is to its tax office."""
    options = options_of(context)

    async def work(client: Client) -> money_pb2.TaxProfile:
        return await client.tax_profile()

    found = reach(options, work)
    show(options, found, _profile_lines(found))


@taxes.command("set-profile")
def set_profile(
    context: typer.Context,
    tenant: Annotated[str, typer.Argument(help="tenants/{tenant}, or its id")],
    name: DisplayName = "",
    address: Address = "",
    country: Country = "",
    tax_id: TaxId = "",
    language: Annotated[str, typer.Option(help="en or zh")] = "en",
    entity: Annotated[str, typer.Option(help="The legal entity that bills it")] = "default",
) -> None:
    """Write a tenant's tax profile, for invoices to come. Operators."""
    options = options_of(context)
    told = money_pb2.TaxProfile(
        tenant=tenant if "/" in tenant else f"tenants/{tenant}",
        display_name=name,
        address=address,
        country=country,
        tax_id=tax_id,
        language=language,
        entity=entity,
    )

    async def work(client: Client) -> money_pb2.TaxProfile:
        return await client.set_tax_profile(told)

    found = reach(options, work, operator=True)
    show(options, found, _profile_lines(found))


@taxes.command("entities")
def entities(context: typer.Context) -> None:
    """Who issues invoices. Operators."""
    options = options_of(context)

    async def work(client: Client) -> list[money_pb2.LegalEntity]:
        return await client.list_legal_entities()

    found = reach(options, work, operator=True)
    heads = ("ENTITY", "NAME", "COUNTRY", "TAX NUMBER", "PREFIX")
    rows = [(it.entity, it.display_name, it.country, it.tax_id, it.prefix) for it in found]
    show_rows(options, found, heads, rows)


@taxes.command("set-entity")
def set_entity(
    context: typer.Context,
    entity: Annotated[str, typer.Argument(help="Short id, such as default")],
    prefix: Annotated[str, typer.Option(help="What its numbers begin with, such as GL")],
    name: DisplayName = "",
    address: Address = "",
    country: Country = "",
    tax_id: TaxId = "",
) -> None:
    """Write a legal entity, for invoices to come. Operators."""
    options = options_of(context)
    told = money_pb2.LegalEntity(
        entity=entity,
        display_name=name,
        address=address,
        country=country,
        tax_id=tax_id,
        prefix=prefix,
    )

    async def work(client: Client) -> money_pb2.LegalEntity:
        return await client.set_legal_entity(told)

    it = reach(options, work, operator=True)
    show(options, it, [f"{it.entity}  {it.display_name}  {it.country}  {it.tax_id}  {it.prefix}"])


@taxes.command("rates")
def rates(context: typer.Context) -> None:
    """The tax table."""
    options = options_of(context)

    async def work(client: Client) -> list[money_pb2.TaxRate]:
        return await client.list_tax_rates()

    found = reach(options, work)
    show_rows(
        options,
        found,
        ("COUNTRY", "TAX", "RATE", "FROM", "SOURCE"),
        [_rate_row(it) for it in found],
    )


@taxes.command("add-rate")
def add_rate(
    context: typer.Context,
    country: Annotated[str, typer.Argument(help="Two letters, such as DE")],
    permyriad: Annotated[int, typer.Argument(help="In ten thousandths: 1900 = 19 %")],
    since: Annotated[str, typer.Option("--from", help="The first day, as 2026-01-31")],
    source: Annotated[str, typer.Option(help="The law or notice that says so")],
    label: Annotated[str, typer.Option(help="What it is called there")] = "VAT",
) -> None:
    """Add to the tax table; nothing in it is ever edited. Operators."""
    options = options_of(context)
    told = money_pb2.TaxRate(country=country, label=label, permyriad=permyriad, source=source)
    told.effective_time.FromDatetime(_day(since))

    async def work(client: Client) -> money_pb2.TaxRate:
        return await client.create_tax_rate(told)

    found = reach(options, work, operator=True)
    show(options, found, ["  ".join(_rate_row(found))])


def _day(text: str) -> datetime.datetime:
    try:
        day = datetime.date.fromisoformat(text)
    except ValueError as error:
        raise Invalid(
            f"{text!r} is no day.",
            reason="BAD_DAY",
            field="--from",
            remedy="Write it as 2026-01-31; it begins at midnight UTC.",
        ) from error
    return datetime.datetime(day.year, day.month, day.day, tzinfo=datetime.UTC)


def _rate_row(it: money_pb2.TaxRate) -> tuple[str, ...]:
    rate = f"{it.permyriad / 100:g} %"
    return (it.country, it.label, rate, words.clock(it.effective_time), it.source)


def _profile_lines(it: money_pb2.TaxProfile) -> list[str]:
    found = {
        "tenant": it.tenant,
        "name": it.display_name,
        "address": it.address,
        "country": it.country,
        "tax number": it.tax_id,
        "language": it.language,
        "billed by": it.entity,
    }
    return [f"{key:<11}{value}" for key, value in found.items() if value]
