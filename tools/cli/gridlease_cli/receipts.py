"""verify-receipt: whether a node has signed for what it wiped."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from google.protobuf.json_format import Parse, ParseError
from gridlease.type.v1 import job_pb2
from gridlease_kernel.faults import Invalid, Precondition
from gridlease_kernel.receipts import wipe_text
from gridlease_mesh.signatures import verified
from gridlease_sdk.client import Client

from gridlease_cli.app import job_name, options_of, reach
from gridlease_cli.output import show

What = Annotated[str, typer.Argument(help="A file (of show --json), or a job's name")]
Task = Annotated[int, typer.Option("--task", min=0, help="Of a job: which of its tasks, from 0")]
Key = Annotated[str, typer.Option("--key", help="The node's public key that it must be of")]
_MOST_BYTES = 16 << 20


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("verify-receipt")(verify_receipt)


def verify_receipt(context: typer.Context, what: What, task: Task = 0, key: Key = "") -> None:
    """Check the signature under what was wiped after a task; a file is checked without asking."""
    options = options_of(context)
    path = Path(what)
    if path.is_file():
        receipt = _of_file(path, task)
    else:

        async def work(client: Client) -> job_pb2.Job:
            return await client.get_job(await job_name(client, what))

        job = reach(options, work)
        receipt = _of_job(job, task)
        if not receipt.valid:
            raise _forged(receipt, "the key is not the one that its node enrolled with")
    _check(receipt, key)
    receipt.valid = True
    show(options, receipt, _lines(receipt))


def _of_file(path: Path, task: int) -> job_pb2.WipeReceipt:
    """A job's, a task's or a receipt's own JSON."""
    text = path.read_bytes()[:_MOST_BYTES]
    for kind in (job_pb2.Job, job_pb2.Task, job_pb2.WipeReceipt):
        try:
            found = Parse(text, kind())
        except (ParseError, UnicodeDecodeError):
            continue
        match found:
            case job_pb2.Job():
                return _of_job(found, task)
            case job_pb2.Task():
                return found.receipt
            case job_pb2.WipeReceipt():
                return found
    raise Invalid(
        f"{path} holds no receipt.",
        reason="NOT_A_RECEIPT",
        field="FILE",
        remedy="Save one: gridlease --json show JOB > FILE.",
    )


def _of_job(job: job_pb2.Job, index: int) -> job_pb2.WipeReceipt:
    for task in job.tasks:
        if task.index == index and task.HasField("receipt"):
            return task.receipt
    raise Precondition(
        f"Task {index} of {job.name} has no receipt.",
        reason="NO_RECEIPT_YET",
        field="JOB",
        remedy="It comes when the task has ended and all that it held is wiped; ask again later.",
    )


def _check(receipt: job_pb2.WipeReceipt, key: str) -> None:
    """Raises: Invalid: RECEIPT_INVALID."""
    if key and key != receipt.public_key:
        raise _forged(receipt, "it is of another key")
    if len(receipt.wiped) != len(receipt.methods) or not receipt.wiped:
        raise _forged(receipt, "it does not say how each was verified")
    pairs = tuple(zip(receipt.wiped, receipt.methods, strict=True))
    at_ns = receipt.verify_time.ToNanoseconds()
    text = wipe_text(receipt.lease, receipt.public_key, pairs, at_ns)
    if not verified(receipt.public_key, text, receipt.signature):
        raise _forged(receipt, "the signature is not that key's under this text")


def _forged(receipt: job_pb2.WipeReceipt, why: str) -> Invalid:
    return Invalid(
        f"The receipt of lease {receipt.lease or '(none)'} does not hold: {why}.",
        reason="RECEIPT_INVALID",
        field="receipt",
        remedy="Do not rely on it; ask the node's operator.",
    )


def _lines(receipt: job_pb2.WipeReceipt) -> list[str]:
    lines = [
        f"lease     {receipt.lease}",
        f"key       {receipt.public_key}",
        f"verified  {receipt.verify_time.ToJsonString()}",
    ]
    lines += [
        f"wiped     {what} by {how}"
        for what, how in zip(receipt.wiped, receipt.methods, strict=True)
    ]
    return [*lines, "The signature is that key's."]
