"""plan, explain: where a job would go or why it is where it is, when, and at what price."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated

import typer
from gridlease.gateway.v1 import gateway_pb2
from gridlease.type.v1 import capacity_pb2
from gridlease_sdk.client import Client

from gridlease_cli import words
from gridlease_cli.app import job_name, options_of, reach
from gridlease_cli.drafts import draft
from gridlease_cli.jobs import (
    Budget,
    Cpu,
    Disk,
    File,
    Gpu,
    Job,
    MaxDuration,
    Memory,
    Nodes,
    Priority,
    Runtime,
    Tier,
)
from gridlease_cli.output import cells, show

_HEADS = ("CHIP", "NOW", "AN HOUR", "IN ALL", "TAKES", "EARLIEST", "")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("plan")(plan)
    app.command("explain")(explain)


def plan(
    context: typer.Context,
    file: File = None,
    *,
    gpu: Gpu = "",
    cpu: Cpu = "",
    memory: Memory = "",
    disk: Disk = "",
    runtime: Runtime = "",
    nodes: Nodes = "",
    budget: Budget = "",
    max_duration: MaxDuration = "",
    tier: Tier = "",
    priority: Priority = None,
    project: Annotated[str, typer.Option(help="Operators: projects/{project}")] = "",
) -> None:
    """A dry run: where a job would go now, when, at what price, and on which other chips."""
    options = options_of(context)
    given = {
        "gpu": gpu, "cpu": cpu, "memory": memory, "disk": disk, "runtime": runtime,
        "nodes": nodes, "budget": budget, "max_duration": max_duration, "tier": tier,
        "priority": priority,
    }  # fmt: skip
    made = draft(file, options.command, given)

    async def work(client: Client) -> gateway_pb2.PlanJobResponse:
        return await client.plan(made, project=project)

    found = reach(options, work)
    show(options, found, _plan_lines(found))


def explain(context: typer.Context, job: Job) -> None:
    """Why a job stands where it stands, what would change it, and what else it could run on."""
    options = options_of(context)

    async def work(client: Client) -> gateway_pb2.ExplainJobResponse:
        return await client.explain(await job_name(client, job))

    found = reach(options, work)
    show(options, found, _explain_lines(found))


def _plan_lines(found: gateway_pb2.PlanJobResponse) -> Iterator[str]:
    yield "It would start now." if found.placeable else f"It would wait: {found.reason.code}"
    yield found.reason.message
    yield from _places(found.placements)
    if found.currency and found.rate_nano_per_hour:
        cost = f"price     {words.money(found.rate_nano_per_hour, found.currency)} an hour"
        if found.amount_nano:
            whole = words.money(found.amount_nano, found.currency)
            cost += f", {whole} for {words.span(found.duration_ms * 1_000_000)}"
        yield cost
    if not found.placeable:
        yield from _waiting(found.earliest_start_time.seconds, found)
        yield from (f"room      {name} would have to give way" for name in found.makes_room)
    yield from _options(found.options)


def _explain_lines(found: gateway_pb2.ExplainJobResponse) -> Iterator[str]:
    yield f"{words.state(found.state)}: {found.reason.code}"
    yield found.reason.message
    yield from (f"  {name}: {value}" for name, value in sorted(found.reason.evidence.items()))
    yield from _places(found.placements)
    if found.rate_nano_per_hour:
        yield f"price     {words.money(found.rate_nano_per_hour, found.currency)} an hour"
    waits = words.state(found.state) == "PENDING"
    yield from _waiting(found.earliest_start_time.seconds if waits else None, found)
    yield from _options(found.options)


def _places(placements: Iterable[capacity_pb2.Placement]) -> Iterator[str]:
    for each in placements:
        held = each.allocation
        where = f"{words.short(each.node)} ({words.short(each.site)})"
        yield f"task {each.index:<4} {words.milli(held.quantity_milli)} x {held.chip} on {where}"


def _waiting(
    earliest: int | None,
    found: gateway_pb2.PlanJobResponse | gateway_pb2.ExplainJobResponse,
) -> Iterator[str]:
    """``earliest``: None where it is not asked, 0 where it is not known."""
    if earliest is not None:
        when = words.clock(found.earliest_start_time) if earliest else "not known"
        yield f"earliest  {when}"
    remedies = list(found.remedies) or [found.reason.hint]
    yield from (f"What would change it: {remedy}" for remedy in remedies if remedy)
    for code, count in sorted(found.nodes_ruled_out.items()):
        yield f"  {count} node{'s' if count != 1 else ''} ruled out by {code}"


def _options(options: Iterable[capacity_pb2.ChipOption]) -> Iterator[str]:
    rows = [_option(each) for each in options]
    if rows:
        yield ""
        yield from cells(_HEADS, rows)


def _option(each: capacity_pb2.ChipOption) -> tuple[str, ...]:
    priced = bool(each.currency)
    return (
        each.chip,
        "yes" if each.placeable else each.reason.code or "no",
        words.money(each.rate_nano_per_hour, each.currency) if priced else "-",
        words.money(each.amount_nano, each.currency) if priced and each.amount_nano else "-",
        words.span(each.duration_ms * 1_000_000) if each.duration_ms else "-",
        "now" if each.placeable else words.clock(each.earliest_start_time),
        "asked for" if each.asked_for else "",
    )
