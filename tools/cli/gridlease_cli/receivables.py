"""receivables …: what invoices ask for beyond prepaid credit, who paid it, and until when."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import typer
from gridlease.gateway.v1 import contract_pb2 as public
from gridlease.type.v1 import receivable_pb2
from gridlease_kernel.units import parse_money
from gridlease_sdk.client import Client

from gridlease_cli import words
from gridlease_cli.app import options_of, reach
from gridlease_cli.output import emit, show, show_cells, show_rows

receivables = typer.Typer(
    help="What invoices ask for, and who paid it.", rich_markup_mode=None, no_args_is_help=False
)
terms = typer.Typer(help="When invoices are to be paid. Operators.", rich_markup_mode=None)
Invoice = Annotated[str, typer.Argument(help="An invoice: its name or number")]
Amount = Annotated[str, typer.Option(help="Such as 12.50; else all of it")]
Note = Annotated[str, typer.Option(help="For the books")]
RequestId = Annotated[str, typer.Option(help="The same id is written down once")]
_TENANT = "tenants/{tenant}, or its id"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    receivables.add_typer(terms, name="terms", invoke_without_command=True, callback=list_terms)
    app.add_typer(receivables, name="receivables", invoke_without_command=True, callback=list_open)


def list_open(
    context: typer.Context,
    tenant: Annotated[str, typer.Option(help=f"For operators: {_TENANT}")] = "",
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=1_000)] = 100,
) -> None:
    """What is open, due first first, and by age: 0, 30, 60, 90 days and more."""
    if context.invoked_subcommand is not None:
        return
    options = options_of(context)

    async def work(client: Client) -> public.ListReceivablesResponse:
        return await client.list_receivables(tenant=_full(tenant), page_size=limit)

    found = reach(options, work)
    if options.format != "table":
        emit(options, found)
        return
    heads = ("INVOICE", "NUMBER", "TENANT", "DUE", "STATE", "DAYS", "ASKED", "OPEN")
    show_cells(heads, [_row(it) for it in found.receivables])
    ages = ("FOR", "NOT DUE", "0-30 DAYS", "31-60", "61-90", "OLDER", "ALL")
    show_cells(ages, [_age_row(it) for it in found.ages])


@receivables.command("show")
def show_one(
    context: typer.Context,
    invoice: Invoice,
    tenant: Annotated[str, typer.Option(help=f"For operators: {_TENANT}")] = "",
) -> None:
    """What one invoice asks for, and its payments."""
    options = options_of(context)

    async def work(client: Client) -> receivable_pb2.Receivable:
        return await client.get_receivable(invoice, tenant=_full(tenant))

    found = reach(options, work)
    show(options, found, _lines(found))


@receivables.command("pay")
def pay(
    context: typer.Context,
    invoice: Invoice,
    tenant: Annotated[str, typer.Option(help=_TENANT)],
    amount: Amount = "",
    note: Note = "",
    request_id: RequestId = "",
) -> None:
    """Write down money for an invoice; what is more than it asks for is prepaid. Operators."""
    options = options_of(context)
    nano = parse_money(amount, "--amount") if amount else 0

    async def work(client: Client) -> public.CreatePaymentResponse:
        return await client.create_payment(
            _full(tenant), invoice, nano, note=note, request_id=request_id
        )

    found = reach(options, work, operator=True)
    show(options, found, [_payment(found.payment), *_lines(found.receivable)])


@receivables.command("refund")
def refund(
    context: typer.Context,
    payment: Annotated[str, typer.Argument(help="The payment's request id")],
    tenant: Annotated[str, typer.Option(help=_TENANT)],
    amount: Amount = "",
    note: Note = "",
    request_id: RequestId = "",
) -> None:
    """Write down that a payment, or a part of it, went back. Operators."""
    options = options_of(context)
    nano = parse_money(amount, "--amount") if amount else 0

    async def work(client: Client) -> public.CreateRefundResponse:
        return await client.create_refund(
            _full(tenant), payment, nano, note=note, request_id=request_id
        )

    found = reach(options, work, operator=True)
    show(options, found, [_payment(found.payment), *_lines(found.receivable)])


def list_terms(context: typer.Context) -> None:
    """Terms in force: everybody's, then tenants' own."""
    if context.invoked_subcommand is not None:
        return
    options = options_of(context)

    async def work(client: Client) -> list[receivable_pb2.PaymentTerms]:
        return await client.list_payment_terms()

    found = reach(options, work, operator=True)
    show_rows(options, found, ("FOR", "DUE AFTER", "NO GRANTS"), [_terms_row(it) for it in found])


@terms.command("set")
def set_terms(
    context: typer.Context,
    due_days: Annotated[int, typer.Argument(min=0, max=3650, help="From the issue until due")],
    grace_days: Annotated[
        int | None,
        typer.Option(min=0, max=3650, help="From due until no new grants; else never"),
    ] = None,
    tenant: Annotated[str, typer.Option(help="Only of this tenant")] = "",
) -> None:
    """Write terms: the days hold for invoices to come, the grace at once."""
    options = options_of(context)

    async def work(client: Client) -> receivable_pb2.PaymentTerms:
        return await client.set_payment_terms(due_days, grace_days=grace_days, tenant=_full(tenant))

    found = reach(options, work, operator=True)
    show(options, found, ["  ".join(_terms_row(found))])


def _row(it: receivable_pb2.Receivable) -> tuple[str, ...]:
    return (
        words.short(it.invoice),
        it.number,
        it.tenant,
        words.clock(it.due_time),
        it.state.lower().replace("_", " "),
        str(it.days_overdue or "-"),
        words.money(it.asked_nano, it.currency),
        words.money(it.open_nano, it.currency),
    )


def _age_row(it: receivable_pb2.ReceivableAge) -> tuple[str, ...]:
    amounts = (
        it.current_nano, it.days_30_nano, it.days_60_nano, it.days_90_nano, it.older_nano,
        it.total_nano,
    )  # fmt: skip
    return (it.tenant or "all", *(words.money(nano, it.currency) for nano in amounts))


def _terms_row(it: receivable_pb2.PaymentTerms) -> tuple[str, ...]:
    stops = f"{it.grace_days} days after" if it.HasField("grace_days") else "never"
    return it.tenant or "everybody", f"{it.due_days} days", stops


def _lines(it: receivable_pb2.Receivable) -> Iterator[str]:
    yield f"invoice   {it.number} ({it.invoice})"
    yield f"state     {it.state.lower().replace('_', ' ')}, due {words.clock(it.due_time)}"
    yield f"asked     {words.money(it.asked_nano, it.currency)} beyond what was prepaid"
    yield f"paid      {words.money(it.paid_nano, it.currency)}"
    yield f"credited  {words.money(it.credited_nano, it.currency)}"
    yield f"open      {words.money(it.open_nano, it.currency)}"
    for each in it.payments:
        yield _payment(each)


def _payment(it: receivable_pb2.Payment) -> str:
    what = f"refund of {it.refunds}" if it.refunds else "payment"
    amount = words.money(it.amount_nano, it.currency)
    prepaid = f", prepaid {words.money(it.prepaid_nano, it.currency)}" if it.prepaid_nano else ""
    return f"{what} {it.request_id}, {words.clock(it.create_time)}: {amount}{prepaid}"


def _full(tenant: str) -> str:
    return tenant if "/" in tenant or not tenant else f"tenants/{tenant}"
