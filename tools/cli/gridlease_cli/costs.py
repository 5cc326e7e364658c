"""cost: what a job has cost so far, and how long its money lasts."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Annotated

import typer
from gridlease.type.v1 import report_pb2
from gridlease_sdk.client import ENDED, Client

from gridlease_cli import words
from gridlease_cli.app import job_name, options_of, reach
from gridlease_cli.output import show

Job = Annotated[str, typer.Argument(help="A job's name, whole or its last part")]
_LIMITS = {"BUDGET": "the job's budget", "BALANCE": "the balance"}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("cost")(cost)


def cost(
    context: typer.Context,
    job: Job,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Until it has ended")] = False,
    every: Annotated[int, typer.Option(min=1, max=3_600, help="Seconds between looks")] = 2,
) -> None:
    """What a job has cost so far, what it costs an hour, and how long its money lasts."""
    options = options_of(context)

    async def once(client: Client) -> report_pb2.JobCost:
        return await client.get_job_cost(await job_name(client, job))

    async def watched(client: Client) -> None:
        name = await job_name(client, job)
        while True:
            ended = (await client.get_job(name)).state in ENDED
            found = await client.get_job_cost(name)
            show(options, found, [_in_a_line(found)])
            if ended and not found.leases:
                return
            await asyncio.sleep(every)

    if watch:
        reach(options, watched)
        return
    found = reach(options, once)
    show(options, found, lines(found))


def lines(it: report_pb2.JobCost) -> Iterator[str]:
    """The whole of it."""
    yield f"cost      {words.money(_spent(it), it.currency)} so far"
    if it.other_nano:
        yield f"          {words.money(it.other_nano, it.currency)} of it besides run time"
    if it.credited_nano:
        yield f"          {words.money(it.credited_nano, it.currency)} were given back"
    yield f"held      {words.money(it.held_nano, it.currency)}"
    yield f"an hour   {words.money(it.rate_nano_per_hour, it.currency)} now"
    if it.HasField("budget_nano"):
        yield f"budget    {words.money(it.budget_nano, it.currency)}"
    yield f"available {words.money(it.available_nano, it.currency)} of the tenant's"
    yield f"lasts     {_lasts(it)}"
    for lease in it.leases:
        left = words.span(lease.grant_left_ms * 1_000_000)
        yield (
            f"lease     {lease.lease}: {words.milli(lease.quantity_milli)} x {lease.chip},"
            f" {lease.state}, {words.money(lease.charged_nano, it.currency)} so far,"
            f" granted for {left} more"
        )
    if it.ended_count:
        yield f"ended     {it.ended_count} lease{'s' if it.ended_count != 1 else ''}"


def _in_a_line(it: report_pb2.JobCost) -> str:
    parts = [
        words.clock(it.time),
        f"cost {words.money(_spent(it), it.currency)}",
        f"held {words.money(it.held_nano, it.currency)}",
        f"an hour {words.money(it.rate_nano_per_hour, it.currency)}",
        f"lasts {_lasts(it)}",
    ]
    return "  ".join(parts)


def _spent(it: report_pb2.JobCost) -> int:
    return it.charged_nano + it.other_nano - it.credited_nano


def _lasts(it: report_pb2.JobCost) -> str:
    if not it.HasField("lasts_ms"):
        return "nothing runs"
    limit = _LIMITS.get(it.lasts_by, it.lasts_by)
    return f"{words.span(it.lasts_ms * 1_000_000)} at most, by {limit}"
