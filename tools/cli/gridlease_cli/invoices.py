"""invoices …, verify-bill: bills, credit notes, and whether a bill is right."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from gridlease.billing.v1 import account_pb2
from gridlease.type.v1 import money_pb2
from gridlease_kernel.faults import Invalid, Precondition
from gridlease_kernel.units import parse_money
from gridlease_mesh import meter_report
from gridlease_sdk.client import Client
from gridlease_verify.bill import Trust, examine, signed

from gridlease_cli import energy, words
from gridlease_cli.app import job_name, options_of, reach
from gridlease_cli.evidence import collect
from gridlease_cli.output import show, show_rows

invoices = typer.Typer(help="Bills and credit notes.", rich_markup_mode=None)
_FORMATS = {
    "text": account_pb2.INVOICE_FORMAT_TEXT,
    "json": account_pb2.INVOICE_FORMAT_JSON,
    "pdf": account_pb2.INVOICE_FORMAT_PDF,
    "csv": account_pb2.INVOICE_FORMAT_CSV,
    "focus": account_pb2.INVOICE_FORMAT_FOCUS,
}
_NOT_EQUAL = 1
Name = Annotated[str, typer.Argument(help="An invoice: its name or number")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(invoices, name="invoices", invoke_without_command=True, callback=list_all)
    app.command("verify-bill")(verify_bill)


def list_all(context: typer.Context) -> None:
    """Bills and credit notes, newest first."""
    if context.invoked_subcommand is not None:
        return
    options = options_of(context)

    async def work(client: Client) -> list[money_pb2.Invoice]:
        return await client.list_invoices()

    found = reach(options, work)
    heads = ("INVOICE", "NUMBER", "KIND", "STATE", "ISSUED", "TOTAL", "TAX", "PAYABLE")
    rows = [
        (
            words.short(it.name),
            it.number or "-",
            it.kind.lower().replace("_", " "),
            it.state.lower(),
            words.clock(it.issue_time),
            words.money(it.total_nano, it.currency),
            words.money(it.tax_nano, it.currency),
            words.money(it.payable_nano, it.currency),
        )
        for it in found
    ]
    show_rows(options, found, heads, rows)


@invoices.command("create")
def create(
    context: typer.Context,
    job: Annotated[str, typer.Option(help="Only this job")] = "",
    draft: Annotated[bool, typer.Option("--draft", help="Without a number yet")] = False,
    request_id: Annotated[str, typer.Option(help="The same id bills once")] = "",
) -> None:
    """Bill what is final and not billed yet."""
    options = options_of(context)

    async def work(client: Client) -> money_pb2.Invoice:
        name = await job_name(client, job) if job else ""
        return await client.create_invoice(job=name, draft=draft, request_id=request_id)

    found = reach(options, work)
    show(options, found, _told(found))


@invoices.command("finalize")
def finalize(context: typer.Context, invoice: Name) -> None:
    """Give a draft its number; afterwards nothing of it changes."""
    options = options_of(context)

    async def work(client: Client) -> money_pb2.Invoice:
        return await client.finalize_invoice(_full(invoice))

    found = reach(options, work)
    show(options, found, _told(found))


@invoices.command("show")
def show_one(context: typer.Context, invoice: Name) -> None:
    """One bill, line by line."""
    options = options_of(context)

    async def work(client: Client) -> money_pb2.Invoice:
        return await client.get_invoice(_full(invoice))

    found = reach(options, work)
    show(options, found, _told(found))


@invoices.command("download")
def download(
    context: typer.Context,
    invoice: Name,
    file_format: Annotated[str, typer.Option("--as", help=", ".join(_FORMATS))] = "pdf",
    language: Annotated[str, typer.Option(help="en or zh, of text and pdf")] = "",
    out: Annotated[Path | None, typer.Option("--to", help="The file to write")] = None,
) -> None:
    """Write a bill to a file."""
    options = options_of(context)
    if file_format not in _FORMATS:
        raise Invalid(
            f"There is no format {file_format!r}.",
            reason="UNKNOWN_VALUE",
            field="--as",
            remedy=f"Choose one of: {', '.join(_FORMATS)}.",
        )

    async def work(client: Client) -> Any:
        kind = _FORMATS[file_format]
        return await client.render_invoice(_full(invoice), kind, language=language)

    found = reach(options, work)
    path = out or Path(found.file_name)
    _write(path, found.content, "--to")
    told = {"file": str(path), "bytes": len(found.content), "media_type": found.media_type}
    show(options, told, [f"written to {path}"])


@invoices.command("credit")
def credit(
    context: typer.Context,
    invoice: Name,
    tenant: Annotated[str, typer.Option(help="tenants/{tenant}, or its id")],
    reason: Annotated[str, typer.Option(help="Stands on the credit note")],
    line: Annotated[int, typer.Option(min=0, help="Which line; 0 = all")] = 0,
    amount: Annotated[str, typer.Option(help="With tax, such as 1.50; empty = the rest")] = "",
    request_id: Annotated[str, typer.Option(help="The same id credits once")] = "",
) -> None:
    """Give back a bill, a line, or a part of one. Operators."""
    options = options_of(context)
    nano = parse_money(amount, "--amount") if amount else 0
    owner = tenant if "/" in tenant else f"tenants/{tenant}"

    async def work(client: Client) -> money_pb2.Invoice:
        return await client.create_credit_note(
            owner,
            _full(invoice),
            reason,
            position=line,
            amount_nano=nano,
            request_id=request_id,
        )

    found = reach(options, work, operator=True)
    show(options, found, _told(found))


@invoices.command("lines")
def lines(
    context: typer.Context,
    invoice: Name,
    line: Annotated[int, typer.Option("--line", min=0, help="Only this line; 0 = all")] = 0,
) -> None:
    """From lines to segments to the signed reports behind them."""
    options = options_of(context)

    async def work(client: Client) -> dict[str, Any]:
        return await collect(client, _full(invoice))

    evidence = reach(options, work)
    chosen = [it for it in evidence["invoice"]["lines"] if line in (0, it["position"])]
    if not chosen:
        raise Invalid(
            f"{invoice} has no line {line}.",
            reason="NO_SUCH_LINE",
            field="--line",
            remedy=f"Its lines are 1 to {len(evidence['invoice']['lines'])}.",
        )
    told = [
        {**it, "reports": [report for report in evidence["reports"] if _proves(report, it)]}
        for it in chosen
    ]
    show(options, told, [text for it in told for text in _drilled(it)])


def verify_bill(
    context: typer.Context,
    invoice: Annotated[str, typer.Argument(help="Its name or number")] = "",
    evidence: Annotated[Path | None, typer.Option(help="A file of --save; no network")] = None,
    save: Annotated[Path | None, typer.Option(help="Keep the evidence in this file")] = None,
    node_key: Annotated[
        list[str] | None, typer.Option(help="nodes/NODE=U…, as you know it; repeat")
    ] = None,
    allow_unsigned: Annotated[
        bool, typer.Option("--allow-unsigned", help="Take the word for nodes without a key")
    ] = False,
) -> None:
    """Recompute a bill from its signed meter reports and the published prices."""
    options = options_of(context)
    trust = Trust(_keys(node_key or []), allow_unsigned)
    if evidence is not None:
        found = _read(evidence)
    elif invoice:
        found = reach(options, lambda client: collect(client, _full(invoice)))
    else:
        raise Invalid(
            "Which invoice?",
            reason="INVOICE_MISSING",
            field="invoice",
            remedy="Write: gridlease verify-bill INVOICE, or --evidence FILE.",
        )
    if save is not None:
        _write(save, json.dumps(found, indent=1, ensure_ascii=False).encode(), "--save")
    findings = examine(found, trust)
    troubles = [it for it in findings if it.wrong]
    unchecked = [it for it in findings if not it.wrong]
    about = found["invoice"] if isinstance(found.get("invoice"), dict) else {}
    told = {
        "invoice": about.get("number") or about.get("name", ""),
        "equal": not troubles,
        "lines": len(about.get("lines", ())),
        "reports": len(found.get("reports", ())),
        "findings": [{"line": it.line, "what": it.what} for it in troubles],
        "not_checkable": [{"line": it.line, "why": it.what} for it in unchecked],
    }
    text = [
        f"{told['invoice']}: {'equal' if not troubles else 'NOT EQUAL'}; {told['lines']} lines,"
        f" {told['reports']} signed reports, payable "
        f"{words.money(about.get('payable_nano', 0), about.get('currency', ''))}",
        *(f"  line {it.line}: {it.what}" if it.line else f"  {it.what}" for it in troubles),
        *(f"  line {it.line}: not checkable: {it.what}" for it in unchecked),
    ]
    show(options, told, text)
    if troubles:
        raise typer.Exit(_NOT_EQUAL)


def _keys(given: list[str]) -> dict[str, str]:
    pairs = [it.partition("=") for it in given]
    if any(not key or not node.startswith("nodes/") for node, _, key in pairs):
        raise Invalid(
            "A node's key is written nodes/NODE=KEY.",
            reason="BAD_NODE_KEY",
            field="--node-key",
            remedy="Take the key from where the node was enrolled.",
        )
    return {node: key for node, _, key in pairs}


def _full(invoice: str) -> str:
    return invoice if "/" in invoice else f"invoices/{invoice}"


def _told(found: money_pb2.Invoice) -> Iterator[str]:
    kind = found.kind.lower().replace("_", " ") or "invoice"
    yield f"{kind}  {found.number or 'draft'} ({found.name}), {words.clock(found.issue_time)}"
    yield f"for       {found.tenant}, {found.project}"
    for at, it in enumerate(found.lines, start=1):
        if it.kind == "INFORMATION":
            yield f"  {at:>3}  {it.lease}: {energy.told(it.meter, it.counter_ns, it.note)}"
            continue
        what = it.meter if it.kind == "USAGE" else f"{it.kind.lower()} {it.note}"
        yield (
            f"  {at:>3}  {what}  {it.lease}/{it.segment}  {it.chip}"
            f"  {words.money(it.amount_nano, it.currency)}"
            f"  billed {words.money(it.billed_nano, it.currency)}"
        )
    yield f"total     {words.money(found.total_nano, found.currency)}"
    yield f"net       {words.money(found.net_nano, found.currency)}"
    tax = words.money(found.tax_nano, found.currency)
    treatment = found.tax_treatment.lower().replace("_", " ")
    yield f"tax       {tax} {treatment} {found.tax_note}".rstrip()
    yield f"payable   {words.money(found.payable_nano, found.currency)}"


def _drilled(it: dict[str, Any]) -> Iterator[str]:
    if it["kind"] == "INFORMATION":
        told = energy.told(it["meter"], it["counter_ns"], it["note"])
        yield f"line {it['position']}: {it['lease']}: {told}, for nothing"
        return
    yield (
        f"line {it['position']}: {it['kind']} {it['meter']}, {it['chip']}: "
        f"{words.money(it['amount_nano'], it['currency'])}"
    )
    yield (
        f"  segment {it['lease']}/{it['segment']} on nodes/{it['node']}: counted "
        f"{it['counter_ns']}, granted {it['granted_ns']}, "
        f"charged {it['charged_ns']}, price version {it['price_version']}"
    )
    if it["counter_ns"] > it["charged_ns"] + it["before"]:
        beyond = it["counter_ns"] - it["charged_ns"] - it["before"]
        yield f"  not charged: {beyond} beyond the grant"
    if not it["reports"]:
        yield "  no signed report"
    for report in it["reports"]:
        holds = "holds" if signed(report) else "DOES NOT HOLD"
        part = f" ({report['part']})" if report["part"] else ""
        yield f"  report{part} signed by {report['node_key']}: {holds}"
        for (segment, meter), count in sorted(meter_report.counted(report["report"])[1].items()):
            if segment == it["segment"]:
                yield f"    counter {segment} {meter} {count}"


def _proves(report: dict[str, Any], line: dict[str, Any]) -> bool:
    return (report["lease"], report["segment"]) == (line["lease"], line["segment"])


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise Precondition(
            f"{path} cannot be read: {error}",
            reason="FILE_UNREADABLE",
            field="--evidence",
            remedy="Name a file that --save wrote.",
        ) from error
    return found if isinstance(found, dict) else {}


def _write(path: Path, content: bytes, field: str) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise Precondition(
            f"{path} cannot be written: {error.strerror or error}",
            reason="FILE_UNWRITABLE",
            field=field,
            remedy="Name a file in a folder that you may write.",
        ) from error
