"""Traces read from CSV files; which kind it is, its header says.

Alibaba's pods, Philly's jobs, Gavel's jobs (whose durations come from measured throughputs), and
our own columns: ``submit_s,duration_s`` and, each optional, ``name,tasks,chip,devices,cpu,memory,
disk,priority,tier,tenant,project,purpose,max_duration_s``.
"""

from __future__ import annotations

import datetime
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gridlease_kernel.faults import Invalid, Missing
from gridlease_kernel.units import parse_cores, parse_size
from gridlease_scheduler.domain.chips import AcceleratorNeed, Catalogue
from gridlease_scheduler.domain.job import Needs, Purpose, Tier

from gridlease_simulate import gavel
from gridlease_simulate.clusterfile import alias
from gridlease_simulate.csvfile import File, Row, need, read
from gridlease_simulate.fields import nearest, seconds_ms, whole, wrong
from gridlease_simulate.workload import Arrival, Trace, split_devices

MOST_TASKS: Final = 100_000
_OWN: Final = (
    "submit_s", "duration_s", "name", "tasks", "chip", "devices", "cpu", "memory", "disk",
    "priority", "tier", "tenant", "project", "purpose", "max_duration_s",
)  # fmt: skip
_KINDS: Final = {
    "alibaba": ("num_gpu", "gpu_milli", "cpu_milli"),
    "philly": ("submit_time", "gpus", "virtual_cluster"),
    "gavel": ("model", "scale_factor", "total_steps", "arrival_s"),
    "own": ("submit_s", "duration_s"),
}


@dataclass(frozen=True, slots=True)
class Reading:
    """What the readers know beside the file: chips, the widest node, how devices are split."""

    catalogue: Catalogue
    widest: int
    slices: int = 1
    throughputs: Path | None = None
    purpose: Purpose = Purpose.TRAINING


def load(path: Path, reading: Reading) -> Trace:
    """The trace in a file.

    Raises:
        Missing: NO_SUCH_FILE.
        Invalid: what stands in the file, with its line, column and remedy.
    """
    if not path.is_file():
        raise Missing(
            f"There is no file {path}.",
            reason="NO_SUCH_FILE",
            field="TRACE",
            remedy="Give a CSV file, packed with gzip or not.",
        )
    file = read(path)
    trace = parse(file, reading, beside=path.parent)
    if not trace.arrivals:
        raise wrong(
            f"{path} holds no jobs.",
            reason="NO_JOBS",
            field="TRACE",
            remedy="Give a trace with at least one line below its header.",
        )
    return trace


def parse(file: File, reading: Reading, *, beside: Path | None = None) -> Trace:
    """The trace in a file that has been read. ``beside``: where a throughput table may lie.

    Raises:
        Invalid: UNKNOWN_TRACE, or a mistake in the file.
    """
    match kind_of(file):
        case "alibaba":
            return _alibaba(file, reading)
        case "philly":
            return _philly(file, reading)
        case "gavel":
            table = reading.throughputs or (beside or Path()) / "throughputs.csv.gz"
            return gavel.parse(file, table, reading.catalogue, reading.widest)
        case _:
            return _own(file, reading)


def kind_of(file: File) -> str:
    """Which kind of trace has such a header.

    Raises:
        Invalid: UNKNOWN_TRACE.
    """
    for kind, columns in _KINDS.items():
        if set(columns) <= set(file.columns):
            return kind
    shapes = "; ".join(f"{kind}: {', '.join(columns)}" for kind, columns in _KINDS.items())
    raise wrong(
        f"{file.name} is no known trace: its header is {', '.join(file.columns) or 'empty'}.",
        reason="UNKNOWN_TRACE",
        field="TRACE",
        remedy=f"Give one with at least these columns: {shapes}.",
    )


def _alibaba(file: File, reading: Reading) -> Trace:
    """Pods: they run from when they were scheduled to when they were deleted."""
    need(file, ("name", "memory_mib", "creation_time", "deletion_time"), "TRACE")
    arrivals, untimed, fractional = [], 0, 0
    for row in file.rows:
        times = [row.values.get(key, "") for key in ("creation_time", "deletion_time")]
        if not all(times):
            untimed += 1
            continue
        created, deleted = (seconds_ms(each, row.field("creation_time")) for each in times)
        started = seconds_ms(
            row.values.get("scheduled_time") or times[0], row.field("scheduled_time")
        )
        duration_ms = deleted - max(created, started)
        if duration_ms <= 0:
            untimed += 1
            continue
        needs, milli = _pod(row, reading)
        fractional += bool(milli)
        name = row.values["name"]
        arrivals.append(Arrival(name, created, duration_ms, needs, asked_milli=milli))
    notes = []
    if fractional:
        how = (
            f"each device is split into {reading.slices} equal parts, and they get as many parts "
            "as cover what they ask; the parts of one pod may lie on several devices of a node"
            if reading.slices > 1
            else "each gets a whole device (--share N splits devices into N parts)"
        )
        notes.append(f"{fractional} pods ask for a part of one GPU (gpu_milli < 1000): {how}.")
    if untimed:
        notes.append(f"{untimed} pods without a time of running are left out.")
    return Trace(file.name, "alibaba", tuple(arrivals), tuple(notes))


def _pod(row: Row, reading: Reading) -> tuple[Needs, int]:
    """What a pod needs, and thousandths of a device where it asks for a part of one."""
    values = row.values
    devices = whole(values["num_gpu"] or 0, row.field("num_gpu"), most=1_024)
    milli = whole(values["gpu_milli"] or 0, row.field("gpu_milli"), most=1_000)
    part = milli if devices == 1 and 0 < milli < 1_000 else 0
    count = -(-part * reading.slices // 1_000) if part else devices * reading.slices
    names = [each for each in values.get("gpu_spec", "").split("|") if each]
    chips = tuple(_chip(alias(each), reading, row.field("gpu_spec")) for each in names)
    accelerator = AcceleratorNeed(chips=chips, count=count) if devices else None
    needs = Needs(
        whole(values["cpu_milli"], row.field("cpu_milli")),
        whole(values["memory_mib"], row.field("memory_mib")) << 20,
        0,
        accelerator,
        purpose=Purpose.BATCH,
    )
    return needs, part


def _chip(name: str, reading: Reading, field: str) -> str:
    """A chip or family that the catalogue knows, as it is written.

    Raises:
        Invalid: UNKNOWN_CHIP.
    """
    if (unknown := reading.catalogue.unknown([name])) is not None:
        raise wrong(
            f"There is no chip {name!r} in the catalogue.",
            reason="UNKNOWN_CHIP",
            field=field,
            remedy=nearest(name, unknown.nearest)
            if unknown.nearest
            else "Add it as a [[chip]] of the cluster file.",
        )
    return name


def _philly(file: File, reading: Reading) -> Trace:
    """Jobs with a number of GPUs; wider than any node, they are gangs of equal tasks."""
    need(file, ("duration_s",), "TRACE")
    arrivals = []
    for at, row in enumerate(file.rows):
        gpus = whole(row.values["gpus"], row.field("gpus"), most=MOST_TASKS)
        tasks, devices = split_devices(gpus, reading.widest // reading.slices)
        accelerator = AcceleratorNeed(count=devices * reading.slices) if gpus else None
        cluster = row.values["virtual_cluster"]
        arrivals.append(
            Arrival(
                f"philly-{at}",
                _instant_ms(row),
                seconds_ms(row.values["duration_s"], row.field("duration_s")),
                Needs(0, 0, 0, accelerator, purpose=reading.purpose),
                tasks,
                tenant=f"tenants/{cluster}",
                project=f"tenants/{cluster}/projects/default",
            )
        )
    note = "It records neither CPUs nor memory: its jobs ask for none."
    return Trace(file.name, "philly", tuple(arrivals), (note,))


def _instant_ms(row: Row) -> int:
    text = row.values["submit_time"]
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError as error:
        raise wrong(
            f"{text!r} is not a time.",
            reason="BAD_TIME",
            field=row.field("submit_time"),
            remedy="Write it as 2017-10-09 06:13:03.",
        ) from error
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    return int(moment.timestamp()) * 1_000


def _own(file: File, reading: Reading) -> Trace:
    for column in file.columns:
        if column not in _OWN:
            raise wrong(
                f"There is no column {column!r}.",
                reason="UNKNOWN_COLUMN",
                field=f"line 1, {column}",
                remedy=nearest(column, _OWN),
            )
    arrivals = [_own_job(at, row, reading) for at, row in enumerate(file.rows)]
    names = Counter(each.name for each in arrivals)
    twice = next((name for name, times in names.items() if times > 1), None)
    if twice is not None:
        raise wrong(
            f"Two jobs are named {twice!r}.",
            reason="NAMED_TWICE",
            field="name",
            remedy="Give each its own name, or leave the column out.",
        )
    return Trace(file.name, "own", tuple(arrivals))


def _own_job(at: int, row: Row, reading: Reading) -> Arrival:
    def text(column: str, default: str) -> str:
        return row.values.get(column) or default

    chip = text("chip", "")
    devices = whole(text("devices", "1" if chip else "0"), row.field("devices"), most=MOST_TASKS)
    chips = tuple(_chip(each, reading, row.field("chip")) for each in chip.split("|") if each)
    count = devices * reading.slices
    accelerator = AcceleratorNeed(chips=chips, count=count) if devices else None
    tenant = text("tenant", "trace").removeprefix("tenants/")
    needs = Needs(
        parse_cores(text("cpu", "0"), row.field("cpu")),
        parse_size(text("memory", "0B"), row.field("memory")),
        parse_size(text("disk", "0B"), row.field("disk")),
        accelerator,
        purpose=Purpose(_choice(row, "purpose", reading.purpose.value, list(Purpose))),
        tier=Tier(_choice(row, "tier", "ON_DEMAND", list(Tier))),
    )
    return Arrival(
        text("name", f"job-{at}"),
        seconds_ms(row.values["submit_s"], row.field("submit_s")),
        seconds_ms(row.values["duration_s"], row.field("duration_s")),
        needs,
        whole(text("tasks", "1"), row.field("tasks"), least=1, most=MOST_TASKS),
        whole(text("priority", "50"), row.field("priority"), most=100),
        f"tenants/{tenant}",
        f"tenants/{tenant}/projects/{text('project', 'default')}",
        longest_ms=seconds_ms(text("max_duration_s", "0"), row.field("max_duration_s")),
    )


def _choice(row: Row, column: str, default: str, known: list[Purpose] | list[Tier]) -> str:
    given = (row.values.get(column) or default).upper().replace("-", "_")
    names = [each.value for each in known]
    if given not in names:
        raise Invalid(
            f"There is no {column} {row.values[column]!r}.",
            reason=f"UNKNOWN_{column.upper()}",
            field=row.field(column),
            remedy=f"Choose one of: {', '.join(names).lower()}.",
        )
    return given
