"""submit, ps, show, logs, stop, wake, events, artefacts."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

import typer
from gridlease.agent.v1 import files_pb2
from gridlease.type.v1 import fleet_pb2, job_pb2
from gridlease_kernel.faults import Conflict, Fault, Invalid, Precondition
from gridlease_sdk.client import ENDED, Client

from gridlease_cli import costs, words
from gridlease_cli.app import job_name, options_of, reach
from gridlease_cli.drafts import draft
from gridlease_cli.output import show, show_rows
from gridlease_cli.trouble import JOB_FAILED

File = Annotated[str | None, typer.Argument(help="Job file (YAML or JSON); or use: -- COMMAND")]
Job = Annotated[str, typer.Argument(help="A job's name, whole or its last part")]
Task = Annotated[int, typer.Option("--task", min=0, help="Which of its tasks, from 0")]
Name = Annotated[str, typer.Option("--name", help="A name for people")]
Gpu = Annotated[str, typer.Option("--gpu", "--gpus", help="Such as A100:80GB:8 or nvidia:24GB..")]
Cpu = Annotated[str, typer.Option("--cpu", "--cpus", help="Cores, such as 4, 0.5 or 4+")]
Memory = Annotated[str, typer.Option(help="Such as 8GB or 32GB..")]
Disk = Annotated[str, typer.Option(help="Such as 100GB")]
Runtime = Annotated[str, typer.Option(help="A prepared environment, by name or lock hash")]
Budget = Annotated[str, typer.Option(help="The most that it may cost, such as 1.50")]
MaxDuration = Annotated[str, typer.Option(help="The longest that it may run, such as 2h")]
Tier = Annotated[str, typer.Option(help="on-demand, reserved or spot")]
Priority = Annotated[int | None, typer.Option(help="0 to 100, higher first")]
Nodes = Annotated[str, typer.Option(help="How many tasks, such as 4; a range such as 2..8")]
Env = Annotated[list[str], typer.Option(help="NAME=VALUE; may be repeated")]
Workdir = Annotated[str, typer.Option(help="Folder that travels with the job (at most 32 MiB)")]
Output = Annotated[list[str], typer.Option("--output", help="Path to keep; may be repeated")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (submit, ps, logs, stop, wake, events, artefacts):
        app.command(command.__name__)(command)
    app.command("show")(show_job)


def submit(
    context: typer.Context,
    file: File = None,
    *,
    name: Name = "",
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
    env: Env = [],  # noqa: B006 - typer's way
    workdir: Workdir = "",
    output: Output = [],  # noqa: B006 - typer's way
    request_id: Annotated[str, typer.Option(help="The same id gives the same job")] = "",
    project: Annotated[str, typer.Option(help="Operators: projects/{project}")] = "",
    wait: Annotated[bool, typer.Option("--wait", help="Wait for its end")] = False,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Show its output too")] = False,
) -> None:
    """Submit a job: a file, or a command after --."""
    options = options_of(context)
    given = {
        "name": name, "gpu": gpu, "cpu": cpu, "memory": memory, "disk": disk, "runtime": runtime,
        "nodes": nodes, "budget": budget, "max_duration": max_duration, "tier": tier,
        "priority": priority, "env": list(env), "workdir": workdir, "outputs": list(output),
    }  # fmt: skip
    made = draft(file, options.command, given)

    async def work(client: Client) -> job_pb2.Job:
        job = await client.submit(made, request_id=request_id, project=project)
        if not (wait or follow):
            return job
        print(f"submitted {job.name}", file=sys.stderr)
        if follow:
            # For programs standard output holds the answer alone.
            await _copy_logs(client, job.name, sys.stderr if options.format != "table" else None)
        return await client.wait(job.name)

    job = reach(options, work)
    show(options, job, _job_lines(job) if job.state in ENDED else [job.name])
    if (wait or follow) and job.state != job_pb2.JOB_STATE_SUCCEEDED:
        raise typer.Exit(JOB_FAILED)


def ps(
    context: typer.Context,
    active: Annotated[bool, typer.Option("--active", help="Only what has not ended")] = False,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="At most so many")] = 50,
    project: Annotated[str, typer.Option(help="Operators: projects/{project}")] = "",
) -> None:
    """List jobs, newest first."""
    options = options_of(context)

    async def work(client: Client) -> list[job_pb2.Job]:
        return await client.list_jobs(active_only=active, limit=limit, project=project)

    found = reach(options, work)
    heads = ("JOB", "STATE", "REASON", "NODE", "CHIP", "AGE", "RAN")
    show_rows(options, found, heads, [_job_row(job) for job in found])


def show_job(context: typer.Context, job: Job) -> None:
    """One job, with its tasks, times and cost."""
    options = options_of(context)

    async def work(client: Client) -> tuple[job_pb2.Job, list[str]]:
        found = await client.get_job(await job_name(client, job))
        if options.format != "table":
            return found, []
        try:
            return found, list(costs.lines(await client.get_job_cost(found.name)))
        except Fault as fault:  # a job is worth showing while billing is away
            return found, [f"cost      not known now: {fault.message}"]

    found, cost = reach(options, work)
    show(options, found, [*_job_lines(found), *cost])


def logs(
    context: typer.Context,
    job: Job,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Until it has ended")] = False,
    task: Task = 0,
) -> None:
    """A job's output, as it wrote it."""
    options = options_of(context)

    async def work(client: Client) -> None:
        name = await job_name(client, job)
        await _copy_logs(client, name, None, follow=follow, task=task)

    reach(options, work)


def stop(context: typer.Context, job: Job) -> None:
    """Ask for a job's end."""
    options = options_of(context)

    async def work(client: Client) -> job_pb2.Job:
        return await client.cancel(await job_name(client, job))

    found = reach(options, work)
    show(options, found, [f"{found.name} {words.state(found.state)}"])


def wake(context: typer.Context, job: Job) -> None:
    """Let a service that rests be placed again."""
    options = options_of(context)

    async def work(client: Client) -> job_pb2.Job:
        return await client.wake(await job_name(client, job))

    found = reach(options, work)
    show(options, found, [f"{found.name} {words.state(found.state)}"])


def events(
    context: typer.Context,
    entity: Annotated[str, typer.Argument(help="Only of this thing, by its whole name")] = "",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="And on as they happen")] = False,
    after: Annotated[int, typer.Option(min=0, help="Only after this number")] = 0,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=1_000)] = 100,
) -> None:
    """What happened, in order."""
    options = options_of(context)

    async def listed(client: Client) -> list[fleet_pb2.Event]:
        return await client.list_events(after=after, entity=entity, limit=limit)

    async def watched(client: Client) -> None:
        async for event in client.watch_events(after=after, entity=entity):
            show(options, event, ["  ".join(_event_row(event))])
            sys.stdout.flush()

    if follow:
        reach(options, watched)
        return
    found = reach(options, listed)
    heads = ("NUMBER", "TIME", "EVENT", "OF", "REASON")
    show_rows(options, found, heads, [_event_row(event) for event in found])


def artefacts(
    context: typer.Context,
    job: Job,
    to: Annotated[Path | None, typer.Option("--to", help="Fetch them into this folder")] = None,
    task: Task = 0,
) -> None:
    """The files that a job left; with --to, fetch them."""
    options = options_of(context)

    async def work(client: Client) -> list[files_pb2.Artefact]:
        name = await job_name(client, job)
        found = await client.list_artefacts(name, task_index=task)
        for artefact in found if to is not None else ():
            assert to is not None
            await _fetch(client, name, artefact, to, task)
        return found

    found = reach(options, work)
    rows = [(it.path, words.size(it.size_bytes), it.sha256[:12]) for it in found]
    show_rows(options, found, ("PATH", "SIZE", "SHA-256"), rows)


async def _copy_logs(
    client: Client, name: str, to: Any, *, follow: bool = True, task: int = 0
) -> None:
    out = (to or sys.stdout).buffer
    async for piece in client.logs(name, follow=follow, task_index=task):
        out.write(piece)
        out.flush()


async def _fetch(
    client: Client, name: str, artefact: files_pb2.Artefact, folder: Path, task: int
) -> None:
    """Fetch one file whole, checked, under its own name; never outside ``folder``."""
    path = PurePosixPath(artefact.path)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise Invalid(
            f"The artefact {artefact.path!r} would leave the folder.",
            reason="ARTEFACT_UNSAFE",
            field="path",
            remedy="Read it by itself, into a file that you name.",
        )
    target = folder / path
    digest = hashlib.sha256()
    with _part_beside(target) as (part, out):
        async for piece in client.read_artefact(name, artefact.path, task_index=task):
            digest.update(piece)
            out.write(piece)
        out.close()
        if artefact.sha256 and digest.hexdigest() != artefact.sha256:
            raise Conflict(
                f"The artefact {artefact.path!r} changed on its way.",
                reason="ARTEFACT_DAMAGED",
                field="path",
                remedy="Fetch it again.",
            )
        part.replace(target)


@contextlib.contextmanager
def _part_beside(target: Path) -> Iterator[tuple[Path, Any]]:
    part = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        number, name = tempfile.mkstemp(dir=target.parent, prefix=".part-")
        part = Path(name)
        part.chmod(0o644)
        with os.fdopen(number, "wb") as out:
            yield part, out
    except OSError as error:
        raise Precondition(
            f"{target} cannot be written: {error.strerror or error}",
            reason="FILE_UNWRITABLE",
            field="--to",
            remedy="Name a folder that you may write, on a disk that is not full.",
        ) from error
    finally:
        if part is not None:
            part.unlink(missing_ok=True)


def _job_row(job: job_pb2.Job) -> tuple[str, ...]:
    task = job.tasks[0] if job.tasks else job_pb2.Task()
    nodes = sorted({words.short(it.node) for it in job.tasks if it.node})
    more = f" and {len(nodes) - 1} more" if len(nodes) > 1 else ""
    return (
        words.short(job.name),
        words.state(job.state),
        job.reason.code or "-",
        f"{nodes[0]}{more}" if nodes else "-",
        task.allocation.chip or "-",
        words.ago(job.create_time),
        words.span(task.ran_ns) if task.ran_ns else "-",
    )


def _job_lines(job: job_pb2.Job) -> Iterator[str]:
    yield f"job       {job.name}"
    yield f"state     {words.state(job.state)}"
    if job.reason.code:
        yield f"reason    {job.reason.code}: {job.reason.message}"
    if job.reason.hint:
        yield f"          {job.reason.hint}"
    yield f"commands  {' && '.join(job.spec.commands)}"
    if job.spec.resources.HasField("accelerator"):
        wanted = (job.spec.resources.accelerator, *job.spec.resources.alternatives)
        link = ", then " if job.spec.resources.alternatives_ordered else " or "
        yield f"gpu       {link.join(words.accelerator(it) for it in wanted)}"
    if len(job.tasks) > 1:
        yield f"tasks     {len(job.tasks)}, all or none"
    if job.spec.budget_nano:
        yield f"budget    {words.money(job.spec.budget_nano)}"
    times = (
        ("submitted", job.create_time), ("placed", job.place_time),
        ("ready", job.ready_time), ("ended", job.end_time),
    )  # fmt: skip
    yield from (f"{name:<9} {words.clock(moment)}" for name, moment in times if moment.seconds)
    if job.evictions:
        yield f"evicted   {job.evictions} time{'s' if job.evictions != 1 else ''}"
    for task in job.tasks:
        yield from _task_lines(task, job.state in ENDED)


def _task_lines(task: job_pb2.Task, ended: bool) -> Iterator[str]:
    where = f" on {words.short(task.node)}" if task.node else ""
    yield f"task {task.index}    attempt {task.attempt}, {words.state(task.state)}{where}"
    if task.lease:
        held = task.allocation
        yield f"          lease {task.lease}: {words.milli(held.quantity_milli)} x {held.chip}"
    if task.reason.code:
        yield f"          {task.reason.code}: {task.reason.message}"
    if task.checkpoint.id:
        told = words.clock(task.checkpoint.create_time)
        yield f"          checkpoint {task.checkpoint.id}, told of at {told}"
    if ended and task.lease:
        yield f"          exit code {task.exit_code}, ran {words.span(task.ran_ns)}"


def _event_row(event: fleet_pb2.Event) -> tuple[str, ...]:
    return (
        str(event.sequence),
        words.clock(event.time),
        event.type,
        event.entity,
        event.reason.code or "-",
    )
