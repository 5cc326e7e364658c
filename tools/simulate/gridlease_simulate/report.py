"""Runs as tables for people, as plain values for programs, and as lines to plot."""

from __future__ import annotations

import csv
import functools
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from gridlease_kernel.money import Money
from gridlease_scheduler.domain.job import Tier

from gridlease_simulate.chart import Line, Panel, spark
from gridlease_simulate.outcome import STATES, Outcome, Spread
from gridlease_simulate.power import total

_KWH_UJ: Final = 3_600_000_000_000
_DAY_MS: Final = 86_400_000
BINS: Final = 60
_MOST_LINES: Final = 15  # of a panel: as many as its legend has room for
_COLUMNS: Final = (
    "job", "state", "tier", "submit_ms", "started_ms", "ended_ms", "waited_ms", "evictions",
    "device_milli_ms", "cost_nano", "reason",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Section:
    """One table: a title, heads, and rows of cells."""

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def sections(runs: Mapping[str, Outcome]) -> list[Section]:
    """Everything, one column a run, and what changes from ``before`` to ``after``."""
    rows = [
        (row.title, *(row.cell(run) for run in runs.values()), *_change(row, runs))
        for row in _ROWS
        if any(row.cell(run) != "-" for run in runs.values())
    ]
    for chip in _chips(runs):
        row = _Row(f"{chip} held", functools.partial(_use, chip))
        rows.append((row.title, *(row.cell(run) for run in runs.values()), *_change(row, runs)))
    heads = ("", *runs, *(["change"] if _compares(runs) else []))
    found = [Section("", heads, tuple(rows))]
    for name, run in runs.items():
        left = tuple(
            (state, str(count), code, f"{message} {hint}".strip())
            for state, code, count, message, hint in run.reasons()
        )
        if left:
            title = "Not finished" if len(runs) == 1 else f"Not finished: {name}"
            found.append(Section(title, ("STATE", "JOBS", "REASON", "THE FIRST WAS TOLD"), left))
    return found


def _compares(runs: Mapping[str, Outcome]) -> bool:
    return "before" in runs and "after" in runs


def _change(row: _Row, runs: Mapping[str, Outcome]) -> tuple[str, ...]:
    """A cell with the change in percent, where two runs are compared and there is a figure."""
    if not _compares(runs):
        return ()
    before, after = (row.figure(runs[name]) for name in ("before", "after"))
    return (f"{100 * (after - before) / before:+.1f} %" if before else "",)


def figures(run: Outcome) -> dict[str, Any]:
    """One run for programs: whole numbers in the units that the names say."""
    energy = total(run.energy)
    return {
        "cluster": run.cluster.name,
        "trace": run.trace.name,
        "kind": run.trace.kind,
        "notes": list(run.trace.notes),
        "jobs": {"submitted": len(run.jobs), "not_yet_submitted": run.unsent}
        | {state: run.count(state) for state in STATES},
        "evictions": run.evictions(),
        "completion_ms": _spread(run.completion()),
        "waiting_ms": _spread(run.waiting()),
        "span_ms": run.span_ms,
        "plans": run.plans,
        "utilisation": {
            each.chip: {
                "capacity_milli": each.capacity_milli,
                "busy_milli_ms": each.busy_milli_ms,
                "percent": round(each.percent, 4),
            }
            for each in run.utilisation()
        },
        "currency": run.cluster.currency,
        "cost_nano": run.cost_nano(),
        "cost_nano_by_tier": {tier.value: run.cost_nano(tier) for tier in Tier},
        "energy": {
            "machines_uj": energy.machines_uj,
            "facility_uj": energy.facility_uj,
            "price_nano": energy.price_nano,
            "carbon_mg": energy.carbon_mg,
        },
        "energy_by_site": {
            each.site: {
                "machines_uj": each.machines_uj,
                "facility_uj": each.facility_uj,
                "price_nano": each.price_nano,
                "carbon_mg": each.carbon_mg,
            }
            for each in run.energy
        },
        "not_finished": [
            {"state": state, "reason": code, "jobs": count, "message": message, "hint": hint}
            for state, code, count, message, hint in run.reasons()
        ],
    }


def sparks(run: Outcome, bins: int = BINS) -> list[tuple[str, str, str]]:
    """(what, a row of blocks, its top) over the run's time."""
    rows = [
        (f"{line.label} held", spark(line.values, 100), "top 100 %")
        for line in lines_held(run, bins, run.span_ms)
        if any(line.values)
    ]
    waiting = line_waiting(run, bins, run.span_ms)
    if any(waiting.values):
        top = max(waiting.values)
        rows.append(("jobs waiting", spark(waiting.values), f"top {top:.3g}"))
    return rows


def panels(runs: Mapping[str, Outcome], bins: int = 240) -> list[Panel]:
    """What a plot shows: the part of each chip that is held, and how many jobs wait."""
    held: list[Line] = []
    waiting: list[Line] = []
    longest_ms = max((run.span_ms for run in runs.values()), default=0)
    for name, run in runs.items():
        mark = f", {name}" if len(runs) > 1 else ""
        held += [
            Line(line.label + mark, line.values)
            for line in lines_held(run, bins, longest_ms)
            if any(line.values)
        ]
        waiting.append(Line("jobs" + mark, line_waiting(run, bins, longest_ms).values))
    busiest = sorted(held, key=lambda line: -sum(line.values))[:_MOST_LINES]
    held = [line for line in held if line in busiest]
    return [
        Panel("Devices held, percent of each chip's", tuple(held), 100.0),
        Panel("Jobs waiting", tuple(waiting)),
    ]


def span_days(runs: Mapping[str, Outcome]) -> float:
    """The time of the longest run: all are plotted over it."""
    return max((run.span_ms for run in runs.values()), default=0) / _DAY_MS


def lines_held(run: Outcome, bins: int, span_ms: int) -> list[Line]:
    """For each chip, the percentage held, as means over equal parts of ``span_ms``."""
    lines = []
    for each in run.utilisation():
        if each.capacity_milli:
            steps = [
                (moment.at_ms, dict(moment.busy_milli).get(each.chip, 0)) for moment in run.moments
            ]
            steps.append((run.span_ms, 0))
            scale = 100 / each.capacity_milli
            values = tuple(scale * value for value in means(steps, span_ms, bins))
            lines.append(Line(each.chip, values))
    return lines


def line_waiting(run: Outcome, bins: int, span_ms: int) -> Line:
    """How many jobs waited, as means over equal parts of ``span_ms``."""
    steps = [(moment.at_ms, moment.waiting) for moment in run.moments]
    steps.append((run.span_ms, 0))
    return Line("jobs waiting", tuple(means(steps, span_ms, bins)))


def means(steps: Sequence[tuple[int, int]], span_ms: int, bins: int) -> list[float]:
    """Means of a step function over ``bins`` equal parts of ``span_ms``; 0 before its first step.

    >>> means([(0, 10), (5, 0)], 10, 4)
    [10.0, 10.0, 0.0, 0.0]
    """
    if span_ms <= 0:
        return [0.0] * bins
    sums = [0.0] * bins
    wide = span_ms / bins
    ends = [at for at, _ in steps[1:]] + [span_ms]
    for (begin, value), end in zip(steps, ends, strict=True):
        at = float(begin)
        while value and at < min(end, span_ms):
            index = min(bins - 1, int(at / wide))
            until = min(float(end), (index + 1) * wide if index < bins - 1 else float(span_ms))
            if until <= at:  # the rounding of a bin's edge
                until = min(float(end), at + wide)
            sums[index] += value * (until - at)
            at = until
    return [each / wide for each in sums]


def jobs_csv(run: Outcome) -> str:
    """Every job of a run, one a line."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for job in run.jobs:
        cells = {name: getattr(job, name) for name in _COLUMNS[1:-1]}
        writer.writerow((job.name, *cells.values(), job.reason.code))
    return out.getvalue()


def span(ms: int) -> str:
    """A span in its two largest units.

    >>> span(93_784_000)
    '1d2h'
    """
    seconds = ms // 1_000
    if seconds < 60:
        return f"{ms / 1_000:g}s"
    parts = (
        (seconds // 86_400, "d"),
        (seconds // 3_600 % 24, "h"),
        (seconds // 60 % 60, "m"),
        (seconds % 60, "s"),
    )
    first = next(at for at, (count, _) in enumerate(parts) if count)
    return "".join(f"{count}{unit}" for count, unit in parts[first : first + 2] if count)


def amount(nano: int, currency: str) -> str:
    """Money to the cent, thousands apart."""
    rounded = Money(nano, currency).rounded()
    return f"{rounded.nano / 10**9:,.2f} {currency}"


def _spread(it: Spread) -> dict[str, int]:
    return {"mean": it.mean_ms, "p50": it.p50_ms, "p99": it.p99_ms, "most": it.most_ms}


def _chips(runs: Mapping[str, Outcome]) -> list[str]:
    """Every chip that some run has, in the order of the first run."""
    return list(dict.fromkeys(each.chip for run in runs.values() for each in run.utilisation()))


def _use(chip: str, run: Outcome) -> str:
    found = next((each for each in run.utilisation() if each.chip == chip), None)
    if found is None:
        return "-"
    return f"{found.percent:.1f} % of {found.capacity_milli / 1_000:g}"


def _some(count: int) -> str:
    return f"{count:,}" if count else "-"


def _nothing(_run: Outcome) -> int:
    return 0


@dataclass(frozen=True, slots=True)
class _Row:
    """A line of the table; "-" is nothing to tell. ``figure``: what its change is reckoned on."""

    title: str
    cell: Callable[[Outcome], str]
    figure: Callable[[Outcome], int] = _nothing


def _span_row(title: str, figure: Callable[[Outcome], int]) -> _Row:
    return _Row(title, lambda run: span(figure(run)), figure)


def _money_row(
    title: str, figure: Callable[[Outcome], int], told: Callable[[Outcome], bool]
) -> _Row:
    def cell(run: Outcome) -> str:
        return amount(figure(run), run.cluster.currency) if told(run) else "-"

    return _Row(title, cell, figure)


def _priced(run: Outcome) -> bool:
    return any(site.price_nano_per_kwh for site in run.cluster.sites)


def _carbon(run: Outcome) -> str:
    if not any(site.carbon_mg_per_kwh for site in run.cluster.sites):
        return "-"
    return f"{total(run.energy).carbon_mg / 10**6:,.1f} kg CO2"


_ROWS: Final = (
    _Row("jobs submitted", lambda run: f"{len(run.jobs):,}"),
    _Row("  finished", lambda run: f"{run.count('finished'):,}"),
    _Row("  running at the end", lambda run: _some(run.count("running"))),
    _Row("  waiting at the end", lambda run: _some(run.count("waiting"))),
    _Row("  rejected: would never fit", lambda run: _some(run.count("rejected"))),
    _Row("  not yet submitted", lambda run: _some(run.unsent)),
    _Row("evictions", lambda run: _some(run.evictions()), lambda run: run.evictions()),
    _span_row("completion, mean", lambda run: run.completion().mean_ms),
    _span_row("completion, p50", lambda run: run.completion().p50_ms),
    _span_row("completion, p99", lambda run: run.completion().p99_ms),
    _span_row("waiting, mean", lambda run: run.waiting().mean_ms),
    _span_row("waiting, p50", lambda run: run.waiting().p50_ms),
    _span_row("waiting, p99", lambda run: run.waiting().p99_ms),
    _span_row("whole run", lambda run: run.span_ms),
    _money_row("charged to tenants", lambda run: run.cost_nano(), lambda _: True),
    _money_row(
        "  of it spot",
        lambda run: run.cost_nano(Tier.SPOT),
        lambda run: any(job.tier is Tier.SPOT for job in run.jobs),
    ),
    _Row(
        "energy, with PUE",
        lambda run: f"{total(run.energy).facility_uj / _KWH_UJ:,.1f} kWh",
        lambda run: total(run.energy).facility_uj,
    ),
    _money_row("  its price", lambda run: total(run.energy).price_nano, _priced),
    _Row("  its carbon", _carbon, lambda run: total(run.energy).carbon_mg),
)
