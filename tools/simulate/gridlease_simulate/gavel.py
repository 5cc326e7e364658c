"""Gavel's jobs: so many steps of a model, whose measured throughput on each chip gives the time.

Source: Narayanan et al., OSDI 2020, its trace and ``simulation_throughputs``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from gridlease_scheduler.domain.chips import AcceleratorNeed, Catalogue
from gridlease_scheduler.domain.job import Needs, Purpose

from gridlease_simulate.csvfile import File, Row, need, read
from gridlease_simulate.fields import seconds_ms, whole, wrong
from gridlease_simulate.workload import Arrival, Pace, Trace, split_devices

_SPREAD: Final = "_unconsolidated"
_MICRO: Final = 1_000_000  # throughputs are kept in millionths of a step a second

# (model, batch size, devices) -> worker type -> millionths of a step a second
Throughputs = dict[tuple[str, str, int], dict[str, int]]


def parse(file: File, throughputs: Path, catalogue: Catalogue, widest: int) -> Trace:
    """The jobs of a trace.

    Raises:
        Invalid: THROUGHPUTS_MISSING, NEVER_MEASURED, or a mistake in a line.
    """
    if not throughputs.is_file():
        raise wrong(
            f"There is no file {throughputs}.",
            reason="THROUGHPUTS_MISSING",
            field="--throughputs",
            remedy="Name Gavel's table: worker_type,model,batch_size,scale_factor,steps_per_s.",
        )
    table = read_throughputs(read(throughputs))
    read_jobs = [_job(at, row, table, catalogue, widest) for at, row in enumerate(file.rows)]
    arrivals = tuple(each for each in read_jobs if each is not None)
    unmeasured = len(read_jobs) - len(arrivals)
    if unmeasured and not arrivals:
        raise wrong(
            f"None of the {unmeasured} jobs has a throughput on a chip of the catalogue.",
            reason="NEVER_MEASURED",
            field="--throughputs",
            remedy="Name the table that has their model, batch_size and scale_factor.",
        )
    kinds = sorted({kind for paces in table.values() for kind in paces if _SPREAD not in kind})
    notes = [
        f"Throughputs are measured on {', '.join(kinds)}: jobs ask for those families only.",
        "It records neither CPUs nor memory: its jobs ask for none.",
    ]
    if unmeasured:
        notes.append(f"{unmeasured} jobs have no measured throughput and are left out.")
    return Trace(file.name, "gavel", arrivals, tuple(notes))


def read_throughputs(file: File) -> Throughputs:
    """The table, by kind of job."""
    columns = ("worker_type", "model", "batch_size", "scale_factor", "steps_per_s")
    need(file, columns, "--throughputs")
    found: Throughputs = {}
    for row in file.rows:
        values = row.values
        scale = whole(values["scale_factor"], row.field("scale_factor"), least=1)
        kind = (values["model"], values["batch_size"], scale)
        micro = _micro(values["steps_per_s"], row.field("steps_per_s"))
        found.setdefault(kind, {})[values["worker_type"]] = micro
    return found


def _micro(text: str, field: str) -> int:
    number, _, places = text.partition(".")
    if not (number + places).isdigit():
        raise wrong(
            f"{text!r} is not a throughput.",
            reason="BAD_NUMBER",
            field=field,
            remedy="Write steps a second, such as 3.438768; 0 = does not run.",
        )
    return int(number or 0) * _MICRO + int((places + "000000")[:6])


def _job(
    at: int, row: Row, table: Throughputs, catalogue: Catalogue, widest: int
) -> Arrival | None:
    """One line's job; None where nobody measured it on any chip."""
    values = row.values
    scale = whole(values["scale_factor"], row.field("scale_factor"), least=1, most=1_024)
    steps = whole(values["total_steps"], row.field("total_steps"), most=10**15)
    rates = table.get((values["model"], values.get("batch_size", ""), scale), {})
    paces: dict[str, Pace] = {}
    families = []
    for kind, micro in rates.items():
        if kind.endswith(_SPREAD) or not micro:
            continue
        spread = rates.get(kind + _SPREAD, 0)
        pace = Pace(_span_ms(steps, micro), _span_ms(steps, spread) if spread else 0)
        chips = [x.name for x in catalogue.accelerators() if x.family.lower() == kind.lower()]
        families += [kind.upper()] if chips else []
        paces |= dict.fromkeys(chips, pace)
    if not paces:
        return None
    tasks, devices = split_devices(scale, widest)
    cluster = values.get("virtual_cluster", "trace")
    return Arrival(
        f"{values['model']}-{at}",
        seconds_ms(values["arrival_s"], row.field("arrival_s")),
        min(pace.together_ms for pace in paces.values()),
        Needs(0, 0, 0, AcceleratorNeed(tuple(families), count=devices), purpose=Purpose.TRAINING),
        tasks,
        tenant=f"tenants/{cluster}",
        project=f"tenants/{cluster}/projects/default",
        paces=paces,
    )


def _span_ms(steps: int, micro: int) -> int:
    """Milliseconds that so many steps take, rounded up."""
    return -(-steps * 1_000 * _MICRO // micro)
