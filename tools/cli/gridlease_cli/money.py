"""quote, usage, invoice, balance, credit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from gridlease.billing.v1 import account_pb2
from gridlease.type.v1 import money_pb2
from gridlease_kernel.faults import Invalid, Precondition
from gridlease_kernel.units import parse_duration, parse_money
from gridlease_sdk.client import Client

from gridlease_cli import energy, words
from gridlease_cli.app import job_name, options_of, reach
from gridlease_cli.drafts import draft
from gridlease_cli.jobs import Cpu, Disk, File, Gpu, Memory, Tier
from gridlease_cli.output import show, show_rows

_TIMED = ("run", "run_priority")
_UNITS = {"egress": "B", "storage": "B·s", "energy": "mJ", "provision": "ns"}


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("quote")(quote)
    app.command("usage")(usage)
    app.command("invoice")(invoice)
    app.command("balance")(balance)
    app.command("credit")(credit)


def quote(
    context: typer.Context,
    file: File = None,
    gpu: Gpu = "",
    cpu: Cpu = "",
    memory: Memory = "",
    disk: Disk = "",
    tier: Tier = "",
    duration: Annotated[str, typer.Option("--for", help="For how long, such as 2h")] = "",
) -> None:
    """What a job would cost, at the cheapest offer that fits."""
    options = options_of(context)
    command = options.command or (None if file else ["true"])
    given = {"gpu": gpu, "cpu": cpu, "memory": memory, "disk": disk, "tier": tier}
    made = draft(file, command, given)
    duration_ms = parse_duration(duration, "--for") if duration else 0

    async def work(client: Client) -> money_pb2.Quote:
        return await client.quote(made, duration_ms=duration_ms)

    it = reach(options, work)
    lines = [
        f"chip      {words.milli(it.quantity_milli)} x {it.chip}, {words.tier(it.tier)}",
        f"an hour   {words.money(it.rate_nano_per_hour, it.currency)}{_priority(it)}",
        f"for {words.span(it.duration_ms * 1_000_000)}: {words.money(it.amount_nano, it.currency)}",
        f"held      {words.money(it.hold_nano, it.currency)} before the first second runs",
        *energy.expected(it),
    ]
    show(options, it, lines)


def _priority(it: money_pb2.Quote) -> str:
    if not it.surcharge_nano_per_hour:
        return ""
    return f", of which its priority is {words.money(it.surcharge_nano_per_hour, it.currency)}"


def usage(
    context: typer.Context,
    job: Annotated[str, typer.Argument(help="Only this job")] = "",
    limit: Annotated[int, typer.Option("--limit", "-n", min=1)] = 100,
) -> None:
    """What was used and what it cost, line by line."""
    options = options_of(context)

    async def work(client: Client) -> list[money_pb2.UsageLine]:
        name = await job_name(client, job) if job else ""
        return await client.list_usage(job=name, limit=limit)

    found = reach(options, work)
    heads = (
        "JOB", "LEASE", "CHIP", "TIER", "AN HOUR", "CHARGED", "AMOUNT", "ENERGY", "CO2E", "STATE"
    )  # fmt: skip
    show_rows(options, found, heads, [_usage_row(line) for line in found])


def invoice(
    context: typer.Context,
    what: Annotated[str, typer.Argument(help="A job (billed now) or an invoice")] = "",
    pdf: Annotated[Path | None, typer.Option(help="Write it as PDF to this file")] = None,
) -> None:
    """List invoices; show one; or bill a job that has ended."""
    options = options_of(context)
    if not what:
        if pdf is not None:
            raise Invalid(
                "Which invoice?",
                reason="INVOICE_MISSING",
                field="what",
                remedy="Write: gridlease invoice JOB --pdf FILE.",
            )
        _list_invoices(context)
        return

    async def work(client: Client) -> tuple[money_pb2.Invoice, bytes]:
        found = await _find_or_bill(client, what)
        if pdf is None:
            return found, b""
        kind = account_pb2.INVOICE_FORMAT_PDF
        return found, (await client.render_invoice(found.name, kind)).content

    found, content = reach(options, work)
    lines = list(_invoice_lines(found))
    if pdf is not None:
        _write(pdf, content)
        lines.append(f"written to {pdf}")
    show(options, found, lines)


def balance(context: typer.Context) -> None:
    """What the tenant has."""
    options = options_of(context)

    async def work(client: Client) -> money_pb2.Balance:
        return await client.balance()

    found = reach(options, work)
    show(options, found, _balance_lines(found))


def credit(
    context: typer.Context,
    tenant: Annotated[str, typer.Argument(help="tenants/{tenant}, or its id")],
    amount: Annotated[str, typer.Argument(help="Such as 100 or 12.50")],
    note: Annotated[str, typer.Option(help="For the books")] = "",
    request_id: Annotated[str, typer.Option(help="The same id pays in once")] = "",
) -> None:
    """Pay credit in for a tenant. Operators."""
    options = options_of(context)
    nano = parse_money(amount, "amount")
    name = tenant if "/" in tenant else f"tenants/{tenant}"

    async def work(client: Client) -> money_pb2.Balance:
        return await client.create_credit(name, nano, note=note, request_id=request_id)

    found = reach(options, work, operator=True)
    show(options, found, _balance_lines(found))


def _list_invoices(context: typer.Context) -> None:
    options = options_of(context)

    async def work(client: Client) -> list[money_pb2.Invoice]:
        return await client.list_invoices()

    found = reach(options, work)
    rows = [
        (
            words.short(it.name),
            it.number,
            words.clock(it.issue_time),
            words.money(it.total_nano, it.currency),
            words.money(it.payable_nano, it.currency),
        )
        for it in found
    ]
    show_rows(options, found, ("INVOICE", "NUMBER", "ISSUED", "TOTAL", "PAYABLE"), rows)


async def _find_or_bill(client: Client, what: str) -> money_pb2.Invoice:
    """The invoice of that name or number, or that of the job, made now if it has none."""
    for known in await client.list_invoices() if "/jobs/" not in what else ():
        if what in (known.name, words.short(known.name), known.number):
            return await client.get_invoice(known.name)
    if what.startswith("invoices/"):
        return await client.get_invoice(what)
    name = await job_name(client, what)
    lines = await client.list_usage(job=name, limit=1_000)
    carried = {line.invoice for line in lines}
    if len(carried) == 1 and "" not in carried:
        return await client.get_invoice(carried.pop())
    return await client.create_invoice(job=name)


def _invoice_lines(found: money_pb2.Invoice) -> Iterator[str]:
    yield f"invoice   {found.number} ({found.name}), {words.clock(found.issue_time)}"
    yield f"for       {found.tenant}, {found.project}"
    for line in found.lines:
        if line.kind == "INFORMATION":
            yield f"  {line.lease}: {energy.told(line.meter, line.counter_ns, line.note)}"
            continue
        if line.meter not in _TIMED or line.kind not in ("", "USAGE"):
            amount = words.money(line.amount_nano, line.currency)
            yield f"  {line.lease}: {line.meter} {line.note or line.counter_ns} = {amount}"
            continue
        rate = words.money(line.rate_nano_per_hour, line.currency)
        seconds = f"{line.charged_ns // 1_000_000_000}.{line.charged_ns % 1_000_000_000:09d} s"
        amount = words.money(line.amount_nano, line.currency)
        yield f"  {words.short(line.job)} {line.lease}: {line.chip}, {line.meter} {seconds}"
        yield f"    x {rate} an hour = {amount}"
    yield f"total     {words.money(found.total_nano, found.currency)}"
    if found.tax_nano:
        yield f"tax       {words.money(found.tax_nano, found.currency)}"
    yield f"payable   {words.money(found.payable_nano, found.currency)}"


def _balance_lines(found: money_pb2.Balance) -> list[str]:
    return [
        f"tenant    {found.tenant}",
        f"posted    {words.money(found.posted_nano, found.currency)}",
        f"held      {words.money(found.held_nano, found.currency)}",
        f"available {words.money(found.available_nano, found.currency)}",
    ]


def _usage_row(line: money_pb2.UsageLine) -> tuple[str, ...]:
    runs = line.meter in _TIMED
    unit = _UNITS.get(line.meter, "")
    span = words.span(line.charged_ns) + (", priority" if line.meter != "run" else "")
    return (
        words.short(line.job),
        line.lease,
        f"{words.milli(line.quantity_milli)} x {line.chip}",
        words.tier(line.tier),
        words.money(line.rate_nano_per_hour, line.currency) if runs else "",
        span if runs else f"{line.meter} {line.charged_ns} {unit}".rstrip(),
        words.money(line.amount_nano, line.currency),
        *(energy.used(line.use) if line.HasField("use") else ("", "")),
        line.lease_state,
    )


def _write(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise Precondition(
            f"{path} cannot be written: {error.strerror or error}",
            reason="FILE_UNWRITABLE",
            field="--pdf",
            remedy="Name a file in a folder that you may write.",
        ) from error
