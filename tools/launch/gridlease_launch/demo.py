"""The main job, end to end, told as it happens: what ./dev demo shows."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from google.protobuf.timestamp_pb2 import Timestamp
from gridlease.billing.v1 import account_pb2
from gridlease.type.v1 import fleet_pb2, job_pb2, money_pb2
from gridlease_kernel.faults import Fault, Unreachable
from gridlease_kernel.money import NANO, Money
from gridlease_sdk import Client, jobfile

from .folder import StateFolder

Say = Callable[[str], None]
_JOB_S: Final = 120.0
_BILLED_S: Final = 60.0
_POLL_S: Final = 0.05
_ABSENT_CHIP: Final = "H100"


@dataclass(frozen=True, slots=True)
class Clients:
    """One connection a role."""

    tenant: Client
    operator: Client


@dataclass(frozen=True, slots=True)
class Ended:
    """The main job after its end, as its tenant sees it."""

    job: job_pb2.Job
    lines: list[money_pb2.UsageLine]
    invoice: money_pb2.Invoice
    accuracy: float
    total_ms: int


def run(endpoint: str, folder: StateFolder, example: Path, say: Say) -> dict[str, Any]:
    """Run the main job and answer the demo's JSON object.

    Raises:
        Fault: something expected went wrong; the sentence says what to do.
    """
    return asyncio.run(_run(endpoint, folder, example, say))


async def _run(endpoint: str, folder: StateFolder, example: Path, say: Say) -> dict[str, Any]:
    keys = json.loads(folder.client_file.read_text(encoding="utf-8"))
    async with (
        Client.connect(endpoint, keys["tenant_key"]) as tenant,
        Client.connect(endpoint, keys["operator_key"]) as operator,
    ):
        clients = Clients(tenant, operator)
        node = await _tell_nodes(operator, say)
        draft = jobfile.load(example / "job.yaml")
        await _tell_quote(tenant, draft, say)
        ended = await _main_job(clients, draft, say)
        _tell_receipt(ended, say)
        sum_nano = await _tell_books(operator, say)
        pdf = await _write_pdf(tenant, ended.invoice, folder)
        say(f"invoice    {ended.invoice.number}: {pdf}")
        pending = await _pending_job(tenant, say)
    return _result(ended, node, sum_nano, pending)


async def _tell_nodes(operator: Client, say: Say) -> fleet_pb2.Node:
    nodes = await operator.list_nodes()
    real = [n for n in nodes if not n.inventory.emulated]
    for node in real:
        has = node.inventory
        say(
            f"joined     {node.name}: {has.cpu_milli / 1000:g} cores ({has.cpu_model}), "
            f"{has.memory_bytes / 2**30:.1f} GiB memory, sandbox {has.sandbox_runtime}"
        )
        for device in has.devices:
            say(f"           {device.id}: {device.chip}")
        for word in has.unenforced:
            say(f"           not enforced here: {word}")
    emulated = len(nodes) - len(real)
    if emulated:
        say(f"joined     {emulated} emulated nodes (they run nothing)")
    if not real:
        raise Unreachable("No node has joined.", reason="NO_NODES", remedy="See the agent's log.")
    return real[0]


async def _tell_quote(tenant: Client, draft: jobfile.Draft, say: Say) -> None:
    quote = await tenant.quote(draft)
    say(
        f"quote      {quote.quantity_milli / 1000:g} x {quote.chip}: "
        f"{_usd(quote.rate_nano_per_hour)} an hour; held before the first second: "
        f"{_usd(quote.hold_nano)}"
    )


async def _main_job(clients: Clients, draft: jobfile.Draft, say: Say) -> Ended:
    began = time.monotonic()
    submitted = await clients.tenant.submit(draft)
    name = submitted.name
    say(f"submitted  {name}")
    async with asyncio.timeout(_JOB_S):
        job = await _follow(clients.tenant, name, say)
    _tell_times(job, say)
    invoice = await _billed(clients.tenant, name)
    total_ms = round((time.monotonic() - began) * 1_000)
    lines = await clients.tenant.list_usage(job=name)
    return Ended(job, lines, invoice, await _accuracy(clients.tenant, name), total_ms)


async def _follow(tenant: Client, name: str, say: Say) -> job_pb2.Job:
    """Watch the job and pass its output on until it has ended."""
    logs = asyncio.create_task(_tell_logs(tenant, name, say))
    placed = False
    job = job_pb2.Job()
    try:
        async for job in tenant.watch(name):
            if not placed and job.tasks and job.tasks[0].node:
                placed = True
                say(f"placed     on {job.tasks[0].node}: {job.tasks[0].reason.message}")
        await asyncio.wait_for(logs, 10.0)
    finally:
        logs.cancel()
        with contextlib.suppress(asyncio.CancelledError, Fault, TimeoutError):
            await logs
    return job


async def _tell_logs(tenant: Client, name: str, say: Say) -> None:
    rest = b""
    async for piece in tenant.logs(name, follow=True):
        *whole, rest = (rest + piece).split(b"\n")
        for line in whole:
            say("  | " + line.decode("utf-8", "replace"))
    if rest:
        say("  | " + rest.decode("utf-8", "replace"))


def _tell_times(job: job_pb2.Job, say: Say) -> None:
    task = job.tasks[0]
    state = job_pb2.JobState.Name(job.state).removeprefix("JOB_STATE_")
    say(
        f"{state.lower():<10} submit → placed {_ms(job.create_time, job.place_time)} ms → ready "
        f"{_ms(job.place_time, job.ready_time)} ms → done {_ms(job.ready_time, job.end_time)} ms; "
        f"ran {task.ran_ns / 1e9:.3f} s"
    )
    if job.state != job_pb2.JOB_STATE_SUCCEEDED:
        say(f"           {job.reason.code}: {job.reason.message} {job.reason.hint}")


async def _billed(tenant: Client, name: str) -> money_pb2.Invoice:
    """The invoice, as soon as every lease of the job is final."""
    deadline = time.monotonic() + _BILLED_S
    while True:
        lines = await tenant.list_usage(job=name)
        if lines and all(line.lease_state == "FINAL" for line in lines):
            return await tenant.create_invoice(job=name)
        if time.monotonic() > deadline:
            raise Unreachable(
                f"The usage of {name} is not final after {_BILLED_S:.0f} s.",
                reason="USAGE_NOT_FINAL",
                remedy="See the agent's and billing's logs.",
            )
        await asyncio.sleep(_POLL_S)


async def _accuracy(tenant: Client, name: str) -> float:
    pieces = [piece async for piece in tenant.read_artefact(name, "metrics.json")]
    return float(json.loads(b"".join(pieces))["accuracy"])


def _tell_receipt(ended: Ended, say: Say) -> None:
    say("receipt    charged seconds x hourly rate / 3600 = amount")
    for line in ended.invoice.lines:
        if line.meter != "run":
            continue  # what is counted beside it has no price here
        say(
            f"           {line.charged_ns / 1e9:.9f} s x {_usd(line.rate_nano_per_hour)} = "
            f"{_usd(line.amount_nano)}   ({line.quantity_milli / 1000:g} x {line.chip})"
        )
    invoice = ended.invoice
    say(
        f"           exact total {_usd(invoice.total_nano)}; "
        f"payable, rounded once: {Money(invoice.payable_nano, invoice.currency)}"
    )


async def _tell_books(operator: Client, say: Say) -> int:
    books = await operator.journal_summary()
    say(
        f"books      {books.journal_count} journals, {books.entry_count} entries, "
        f"sum {books.sum_nano}"
    )
    return books.sum_nano


async def _write_pdf(tenant: Client, invoice: money_pb2.Invoice, folder: StateFolder) -> Path:
    file = await tenant.render_invoice(invoice.name, account_pb2.INVOICE_FORMAT_PDF)
    path = folder.root / (file.file_name or "invoice.pdf")
    path.write_bytes(file.content)
    return path


async def _pending_job(tenant: Client, say: Say) -> job_pb2.Reason:
    """A second job, for a chip that no node here has: it waits, and says why."""
    draft = jobfile.read(
        {
            "type": "task",
            "name": "wants-a-gpu",
            "commands": ["nvidia-smi"],
            "resources": {"gpu": f"{_ABSENT_CHIP}:8"},
        }
    )
    job = await tenant.submit(draft)
    deadline = time.monotonic() + 10.0
    while True:
        found = await tenant.explain(job.name)
        if found.reason.code or time.monotonic() > deadline:
            break
        await asyncio.sleep(_POLL_S)
    state = job_pb2.JobState.Name(found.state).removeprefix("JOB_STATE_")
    say(f"{state.lower():<10} {job.name}: {found.reason.code}: {found.reason.message}")
    say(f"           {found.reason.hint}")
    await tenant.cancel(job.name)
    reason = job_pb2.Reason()
    reason.CopyFrom(found.reason)
    return reason


def _result(
    ended: Ended, node: fleet_pb2.Node, sum_nano: int, pending: job_pb2.Reason
) -> dict[str, Any]:
    """The demo's last line; ``ran_ns`` is the sandbox keeper's, ``charged_ns`` billing's."""
    job, task = ended.job, ended.job.tasks[0]
    ran_ns = task.ran_ns
    charged_ns = sum(line.charged_ns for line in ended.lines if line.meter == "run")
    exact = sum(line.amount_nano for line in ended.lines)
    good = (
        job.state == job_pb2.JOB_STATE_SUCCEEDED
        and 0 < charged_ns <= ran_ns <= charged_ns + NANO
        and exact == ended.invoice.total_nano
        and sum_nano == 0
    )
    return {
        "ok": good,
        "job": {
            "name": job.name,
            "state": job_pb2.JobState.Name(job.state).removeprefix("JOB_STATE_"),
            "accuracy": ended.accuracy,
        },
        "placed_on": task.node,
        "runtime": node.inventory.sandbox_runtime,
        "ms": {
            "submit_to_placed": _ms(job.create_time, job.place_time),
            "placed_to_ready": _ms(job.place_time, job.ready_time),
            "total": ended.total_ms,
        },
        "ran_ns": ran_ns,
        "charged_ns": charged_ns,
        "invoice_nano": ended.invoice.total_nano,
        "journal_sum_nano": sum_nano,
        "pending": {"reason": pending.code, "hint": pending.hint},
    }


def _ms(start: Timestamp, end: Timestamp) -> int:
    """From one timestamp to another, in milliseconds."""
    return round((end.ToNanoseconds() - start.ToNanoseconds()) / 1e6)


def _usd(nano: int) -> str:
    return str(Money(nano))
