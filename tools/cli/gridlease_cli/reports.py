"""report, budgets, notices, webhooks."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Coroutine
from typing import Annotated, Any, Final

import typer
from gridlease.billing.v1 import report_pb2 as billing
from gridlease.gateway.v1 import contract_pb2
from gridlease.gateway.v1 import gateway_pb2 as pb
from gridlease.type.v1 import fleet_pb2, report_pb2
from gridlease_kernel.clock import SystemClock
from gridlease_kernel.faults import Invalid
from gridlease_kernel.units import parse_duration, parse_money
from gridlease_sdk.client import Client

from gridlease_cli import words
from gridlease_cli.app import options_of, reach
from gridlease_cli.output import emit, show, show_cells, show_rows

report = typer.Typer(
    help="What was earned or spent, and for how long it lasts.",
    rich_markup_mode=None,
    no_args_is_help=True,
)
budgets = typer.Typer(help="A month's budgets, and what is told of them.", rich_markup_mode=None)
webhooks = typer.Typer(help="Where the project's events are sent.", rich_markup_mode=None)
_PERIODS: Final = {
    "": billing.PERIOD_UNSPECIFIED,
    "hour": billing.PERIOD_HOUR,
    "day": billing.PERIOD_DAY,
    "month": billing.PERIOD_MONTH,
}
_HOUR_MILLI_MS: Final = 3_600_000_000


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(report, name="report")
    app.add_typer(budgets, name="budgets", invoke_without_command=True, callback=list_budgets)
    app.add_typer(webhooks, name="webhooks", invoke_without_command=True, callback=list_webhooks)
    app.command("notices")(notices)


@report.command("revenue")
def revenue(
    context: typer.Context,
    since: Annotated[str, typer.Option(help="Such as 30d, back from now")] = "30d",
    by: Annotated[str, typer.Option(help="hour, day or month; else all in one")] = "",
    tier: Annotated[bool, typer.Option("--tier", help="Also by tier")] = False,
    supplier: Annotated[
        bool, typer.Option("--supplier", help="Also by the nodes' owner; with --operator")
    ] = False,
) -> None:
    """By chip and site: device-hours, money, and money by device-hour; idle capacity, too."""
    options = options_of(context)
    if by not in _PERIODS:
        raise Invalid(
            f"There is no period {by!r}.",
            reason="UNKNOWN_VALUE",
            field="--by",
            remedy="Choose one of: hour, day, month.",
        )
    back = datetime.timedelta(milliseconds=parse_duration(since, "--since"))
    start = SystemClock().wall() - back

    async def work(client: Client) -> pb.GetRevenueResponse:
        period = billing.Period.ValueType(_PERIODS[by])
        return await client.get_revenue(start, period=period, by_tier=tier, by_supplier=supplier)

    found = reach(options, work)
    if options.format != "table":
        emit(options, found)
        return
    heads = ("FROM", "CHIP", "SITE", "TIER", "OWNER", "DEVICE-HOURS", "AMOUNT", "A DEVICE-HOUR")
    show_cells(heads, [_revenue_row(it) for it in found.rows])
    if found.idle:
        show_cells(
            ("CHIP", "SITE", "CAPACITY H", "IDLE H", "NOT EARNED"), [_idle(it) for it in found.idle]
        )


@report.command("burn-down")
def burn_down(context: typer.Context) -> None:
    """How long the tenant's money lasts, at what runs now."""
    options = options_of(context)

    async def work(client: Client) -> report_pb2.BurnDown:
        return await client.get_burn_down()

    it = reach(options, work)
    lasts = words.span(it.lasts_ms * 1_000_000) if it.HasField("lasts_ms") else "nothing runs"
    lines = [
        f"available {words.money(it.available_nano, it.currency)}",
        f"an hour   {words.money(it.rate_nano_per_hour, it.currency)}",
        f"lasts     {lasts}",
    ]
    show(options, it, lines)


def list_budgets(context: typer.Context) -> None:
    """Budgets, and what is spent of them this month."""
    if context.invoked_subcommand is not None:
        return
    options = options_of(context)

    async def work(client: Client) -> list[report_pb2.SpendingBudget]:
        return await client.list_budgets()

    found = reach(options, work)
    heads = ("FOR", "A MONTH", "SPENT", "TELLS AT")
    show_rows(options, found, heads, [_budget_row(it) for it in found])


@budgets.command("set")
def set_budget(
    context: typer.Context,
    amount: Annotated[str, typer.Argument(help="A month, such as 1000; 0 takes it away")],
    at: Annotated[str, typer.Option(help="Percent, by commas")] = "50,80,100",
    project: Annotated[bool, typer.Option("--project", help="For this project alone")] = False,
) -> None:
    """Write a month's budget. It tells; what stops work is credit, and a job's own --budget."""
    options = options_of(context)
    nano = parse_money(amount, "amount")
    try:
        thresholds = [round(float(it) * 10) for it in at.split(",")]
    except ValueError as error:
        raise Invalid(
            f"{at!r} are not percentages.",
            reason="VALUE_MALFORMED",
            field="--at",
            remedy="Write them as 50,80,100.",
        ) from error

    async def work(client: Client) -> report_pb2.SpendingBudget:
        return await client.set_budget(nano, thresholds=thresholds, project_only=project)

    found = reach(options, work)
    show(options, found, ["  ".join(_budget_row(found))])


def notices(
    context: typer.Context,
    after: Annotated[int, typer.Option(min=0, help="Only later ones")] = 0,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1)] = 100,
) -> None:
    """Thresholds that were reached, and days that cost unlike others."""
    options = options_of(context)

    async def work(client: Client) -> list[fleet_pb2.Event]:
        return await client.list_notices(after=after, limit=limit)

    found = reach(options, work)
    rows = [
        (
            str(it.sequence),
            words.clock(it.time),
            it.type,
            it.entity,
            ", ".join(f"{name} {it.facts[name]}" for name in sorted(it.facts)),
        )
        for it in found
    ]
    show_rows(options, found, ("NUMBER", "WHEN", "WHAT", "OF", "FACTS"), rows)


def list_webhooks(context: typer.Context) -> None:
    """The project's webhooks, and how they fare."""
    if context.invoked_subcommand is not None:
        return
    options = options_of(context)

    async def work(client: Client) -> list[report_pb2.Webhook]:
        return await client.list_webhooks()

    found = reach(options, work)
    rows = [
        (
            it.name,
            it.url,
            ", ".join(it.types) or "all",
            str(it.failures),
            str(it.dead_count),
            it.last_error or "-",
        )
        for it in found
    ]
    show_rows(options, found, ("WEBHOOK", "URL", "TYPES", "FAILURES", "GIVEN UP", "LAST"), rows)


@webhooks.command("add")
def add_webhook(
    context: typer.Context,
    url: Annotated[str, typer.Argument(help="https://...")],
    types: Annotated[str, typer.Option(help="Beginnings of types, by commas; else all")] = "",
) -> None:
    """Send the project's events to an address. The secret is shown once."""
    kinds = [it.strip() for it in types.split(",") if it.strip()]

    async def work(client: Client) -> pb.CreateWebhookResponse:
        return await client.create_webhook(url, types=kinds)

    found = _asked(context, work)
    lines = [f"webhook   {found.webhook.name}", f"secret    {found.secret} (shown once)"]
    show(options_of(context), found, lines)


@webhooks.command("secret")
def renew_secret(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="webhooks/...")],
    overlap: Annotated[str, typer.Option(help="For how long the old one signs, too")] = "24h",
) -> None:
    """Give a webhook a new secret. It is shown once; the old one signs beside it for a while."""
    overlap_ms = parse_duration(overlap, "--overlap") if overlap != "0" else 0

    async def work(client: Client) -> contract_pb2.CreateWebhookSecretResponse:
        return await client.renew_webhook_secret(_hook(name), overlap_ms=overlap_ms)

    found = _asked(context, work)
    lines = [
        f"webhook   {found.webhook.name}",
        f"secret    {found.secret} (shown once)",
        f"old one   signs until {words.clock(found.old_until)}",
    ]
    show(options_of(context), found, lines)


@webhooks.command("replay")
def replay(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="webhooks/...")],
    message_id: Annotated[str, typer.Option("--id", help="One event, such as billing-17")] = "",
    since: Annotated[str, typer.Option(help="All since then, such as 6h, back from now")] = "",
    until: Annotated[str, typer.Option(help="And until then, such as 1h, back from now")] = "",
) -> None:
    """Send events again, each under the id that it had."""
    now = SystemClock().wall()

    def back(text: str, field: str) -> datetime.datetime | None:
        span = datetime.timedelta(milliseconds=parse_duration(text, field)) if text else None
        return None if span is None else now - span

    async def work(client: Client) -> contract_pb2.CreateWebhookReplayResponse:
        start, end = back(since, "--since"), back(until, "--until")
        return await client.replay_webhook(_hook(name), message_id=message_id, start=start, end=end)

    found = _asked(context, work)
    lines = [f"{found.waiting_count} events wait to be sent again"]
    if found.HasField("next_start_time"):
        lines.append(f"more are of that time: ask again from {words.clock(found.next_start_time)}")
    show(options_of(context), found, lines)


@webhooks.command("dead")
def dead_letters(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="webhooks/...; else of all")] = "",
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=1_000)] = 100,
) -> None:
    """Events that were given up, newest first; with --operator those of all projects."""
    options = options_of(context)

    async def work(client: Client) -> contract_pb2.ListDeadLettersResponse:
        return await client.list_dead_letters(name=_hook(name) if name else "", page_size=limit)

    found = reach(options, work)
    rows = [
        (
            it.message_id,
            it.webhook,
            it.type or "-",
            words.clock(it.time),
            str(it.tries),
            "taken after all" if it.HasField("taken_time") else it.last_error,
        )
        for it in found.letters
    ]
    heads = ("EVENT", "WEBHOOK", "TYPE", "GIVEN UP", "TRIES", "LAST")
    show_rows(options, list(found.letters), heads, rows)


@webhooks.command("rm")
def remove_webhook(
    context: typer.Context, name: Annotated[str, typer.Argument(help="webhooks/...")]
) -> None:
    """End a webhook."""
    full = _hook(name)

    async def work(client: Client) -> None:
        await client.delete_webhook(full)

    _asked(context, work)
    show(options_of(context), {"name": full}, [f"{full} is no more"])


def _hook(name: str) -> str:
    return name if "/" in name else f"webhooks/{name}"


def _asked(context: typer.Context, work: Callable[[Client], Coroutine[Any, Any, Any]]) -> Any:
    return reach(options_of(context), work)


def _revenue_row(it: report_pb2.RevenueRow) -> tuple[str, ...]:
    return (
        words.clock(it.start_time) if it.HasField("start_time") else "-",
        it.chip,
        it.site or "-",
        words.tier(it.tier) if it.tier else "-",
        it.supplier or "-",
        f"{it.device_milli_ms / _HOUR_MILLI_MS:.3f}",
        words.money(it.amount_nano, it.currency),
        words.money(it.nano_per_device_hour, it.currency),
    )


def _idle(it: report_pb2.IdleRow) -> tuple[str, ...]:
    return (
        it.chip,
        it.site or "-",
        f"{it.capacity_milli_ms / _HOUR_MILLI_MS:.2f}",
        f"{it.idle_milli_ms / _HOUR_MILLI_MS:.2f}",
        words.money(it.amount_nano, it.currency),
    )


def _budget_row(it: report_pb2.SpendingBudget) -> tuple[str, ...]:
    return (
        it.project or it.tenant,
        words.money(it.amount_nano, it.currency),
        words.money(it.spent_nano, it.currency),
        ", ".join(f"{permille / 10:g} %" for permille in it.thresholds_permille),
    )
