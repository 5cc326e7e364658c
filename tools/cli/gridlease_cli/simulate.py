"""simulate, own-vs-rent: capacity and cost, worked out here, without a platform.

With so many options, a command reads them from its context, by name.
"""

# ruff: noqa: ARG001 - the signatures are the options; their values come from the context

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from gridlease_kernel.faults import Forbidden, Invalid
from gridlease_kernel.units import parse_duration, parse_money

from gridlease_cli.app import options_of
from gridlease_cli.output import emit, show_cells
from gridlease_cli.trouble import clean

if TYPE_CHECKING:
    from gridlease_simulate.outcome import Outcome
    from gridlease_simulate.owning import Purchase, Rental
    from gridlease_simulate.rules import Progress
    from gridlease_simulate.study import Study

_EVERY_S = 5.0
Json = Annotated[bool, typer.Option("--json", help="The same as --format json")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("simulate")(simulate)
    app.command("own-vs-rent")(own_vs_rent)


def simulate(
    context: typer.Context,
    *,
    cluster: Annotated[
        Path | None, typer.Argument(help="A TOML file, or Alibaba's nodes as CSV")
    ] = None,
    trace: Annotated[Path | None, typer.Argument(help="A CSV file, packed or not")] = None,
    example: Annotated[
        bool, typer.Option("--example", help="Print a commented cluster file")
    ] = False,
    add: Annotated[
        list[str] | None, typer.Option(help='More nodes: "2 x H100-80GB:8", "1 x L4:4@north"')
    ] = None,
    remove: Annotated[list[str] | None, typer.Option(help='Fewer nodes: "2 x GROUP"')] = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="Show it without and with the changes")
    ] = False,
    baseline: Annotated[str, typer.Option(help="Beside it, the same under: fifo")] = "",
    share: Annotated[int, typer.Option(help="Split each device into so many parts")] = 1,
    sample: Annotated[int, typer.Option(help="Only so many jobs, drawn by --seed")] = 0,
    limit: Annotated[int, typer.Option(help="Only the first so many jobs")] = 0,
    seed: Annotated[int, typer.Option(help="Of --sample")] = 1,
    load: Annotated[int, typer.Option(help="Percent: 200 = arrivals twice as dense")] = 100,
    stated: Annotated[
        int, typer.Option(help="Percent of its time that a job states as max_duration", min=0)
    ] = 0,
    until: Annotated[str, typer.Option(help="Stop after this much virtual time: 7d")] = "",
    rest: Annotated[str, typer.Option(help="Decide at most so often while jobs wait")] = "0s",
    purpose: Annotated[str, typer.Option(help="Of jobs that name none")] = "training",
    reference_chip: Annotated[
        str, typer.Option(help="Durations hold on this chip, others by relative throughput")
    ] = "",
    checkpoint: Annotated[str, typer.Option(help="How often evicted jobs save")] = "15m",
    restart: Annotated[str, typer.Option(help="What a restart costs")] = "30s",
    throughputs: Annotated[Path | None, typer.Option(help="Gavel's table of them")] = None,
    spot_prices: Annotated[Path | None, typer.Option(help="A CSV for jobs of tier spot")] = None,
    spot_zone: Annotated[str, typer.Option(help="Only this zone of it")] = "",
    plot: Annotated[Path | None, typer.Option(help="Write a chart: FILE.svg")] = None,
    out: Annotated[Path | None, typer.Option(help="Write every job: FILE.csv")] = None,
    as_json: Json = False,
) -> None:
    """Replay a trace on a described cluster through the scheduler's own decisions."""
    from gridlease_simulate import clusterfile, study  # noqa: PLC0415 - only this command pays

    if example:
        print(clusterfile.EXAMPLE, end="")
        return
    runs = study.play(_study(context.params), _watch())
    _write_files(runs, plot, out)
    _tell(context, runs, as_json=as_json)


def _study(given: dict[str, Any]) -> Study:
    """What the command line asks for."""
    from gridlease_simulate.study import Study  # noqa: PLC0415

    if given["cluster"] is None or given["trace"] is None:
        raise Invalid(
            "A cluster and a trace are needed.",
            reason="ARGUMENT_MISSING",
            field="TRACE" if given["cluster"] else "CLUSTER",
            remedy="Write: gridlease simulate CLUSTER.toml TRACE.csv; --example shows a cluster.",
        )
    plot = given["plot"]
    if plot is not None and plot.suffix.lower() != ".svg":
        raise Invalid(
            f"{plot} is not a kind of file that can be drawn.",
            reason="UNKNOWN_PLOT",
            field="--plot",
            remedy="Name a file that ends in .svg; any browser shows it.",
        )
    until = given["until"]
    return Study(
        cluster=given["cluster"],
        trace=given["trace"],
        add=tuple(given["add"] or ()),
        remove=tuple(given["remove"] or ()),
        compare=given["compare"],
        baseline=given["baseline"],
        share=given["share"],
        sample=given["sample"],
        limit=given["limit"],
        seed=given["seed"],
        load_percent=given["load"],
        stated_percent=given["stated"],
        until_ms=parse_duration(until, "--until") if until else 0,
        rest_ms=parse_duration(given["rest"], "--rest"),
        purpose=given["purpose"],
        reference=given["reference_chip"],
        checkpoint_ms=parse_duration(given["checkpoint"], "--checkpoint"),
        restart_ms=parse_duration(given["restart"], "--restart"),
        throughputs=given["throughputs"],
        spot_prices=given["spot_prices"],
        spot_zone=given["spot_zone"],
    )


def _watch() -> Callable[[str, Progress], None]:
    """Progress on standard error, now and then."""
    began = last = time.monotonic()

    def watch(name: str, progress: Progress) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _EVERY_S:
            last = now
            print(
                f"{name}: {progress.ended:,} of {progress.total:,} jobs done, "
                f"day {progress.now_ms / 86_400_000:.1f}, {now - began:.0f} s",
                file=sys.stderr,
                flush=True,
            )

    return watch


def _write_files(runs: dict[str, Outcome], plot: Path | None, out: Path | None) -> None:
    from gridlease_simulate import chart, report  # noqa: PLC0415

    if plot is not None:
        _write(plot, chart.svg(report.panels(runs), report.span_days(runs), "days"), "--plot")
    if out is not None:
        _write(out, report.jobs_csv(list(runs.values())[-1]), "--out")


def _write(path: Path, text: str, field: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise Forbidden(
            f"{path} cannot be written: {error.strerror}.",
            reason="NOT_WRITABLE",
            field=field,
            remedy="Name a file in a folder that exists and that you may write.",
        ) from error


def _tell(context: typer.Context, runs: dict[str, Outcome], *, as_json: bool) -> None:
    from gridlease_simulate import report  # noqa: PLC0415

    options = options_of(context)
    if as_json:
        options.format = "json"
    if options.format != "table":
        emit(options, {name: report.figures(run) for name, run in runs.items()})
        return
    first = next(iter(runs.values()))
    print(clean(f"{first.trace.name} ({first.trace.kind}) on {first.cluster.name}"))
    for note in first.trace.notes:
        print(clean(f"note: {note}"))
    for section in report.sections(runs):
        print(f"\n{section.title}" if section.title else "")
        show_cells(section.heads, section.rows)
    for name, run in runs.items():
        rows = report.sparks(run)
        if rows:
            over = f" over {report.span(run.span_ms)}"
            print(f"\n{name}{over}" if len(runs) > 1 else f"\nTime{over}, left to right")
            wide = max(len(what) for what, _, _ in rows)
            for what, blocks, top in rows:
                print(f"{what.ljust(wide)}  {blocks}  {top}")


def own_vs_rent(
    context: typer.Context,
    *,
    price: Annotated[str, typer.Option(help="Of one node, bought")] = "320000",
    devices: Annotated[int, typer.Option(help="Of that node", min=1)] = 8,
    years: Annotated[str, typer.Option(help="Of use")] = "3",
    residual: Annotated[int, typer.Option(help="Percent left then", min=0, max=100)] = 30,
    watts: Annotated[int, typer.Option(help="Of the node, in use", min=0)] = 10_200,
    idle_watts: Annotated[int, typer.Option(help="When idle; -1 = as in use", min=-1)] = -1,
    pue: Annotated[str, typer.Option(help="Facility watts for each of IT")] = "1.2",
    energy_price: Annotated[str, typer.Option(help="Of a kWh")] = "0.10",
    hosting: Annotated[str, typer.Option(help="Of a kW, each month")] = "200",
    operations: Annotated[str, typer.Option(help="Percent of the price, each year")] = "8",
    admin: Annotated[str, typer.Option(help="People, each year")] = "0",
    rent: Annotated[str, typer.Option(help="Of a device-hour, on demand")] = "2.69",
    reserved: Annotated[str, typer.Option(help="Of a device-hour, used or not")] = "0",
    spot: Annotated[str, typer.Option(help="Of a device-hour on spot")] = "0",
    spot_prices: Annotated[Path | None, typer.Option(help="Or a CSV of them")] = None,
    spot_zone: Annotated[str, typer.Option(help="Only this zone of it")] = "",
    chip: Annotated[str, typer.Option(help="Whose price the CSV is read for")] = "",
    interruptions: Annotated[int, typer.Option(help="On spot, in 100 hours", min=0)] = 5,
    checkpoint: Annotated[str, typer.Option(help="How often work is saved")] = "15m",
    restart: Annotated[str, typer.Option(help="What a restart costs")] = "5m",
    as_json: Json = False,
) -> None:
    """What owning and renting a device-hour cost, and the use at which the answer flips."""
    from gridlease_simulate import ownreport  # noqa: PLC0415 - only this command pays

    purchase, rental = _purchase(context.params), _rental(context.params)
    options = options_of(context)
    if as_json:
        options.format = "json"
    if options.format != "table":
        emit(options, ownreport.figures(purchase, rental))
        return
    for section in ownreport.sections(purchase, rental):
        print(section.title)
        show_cells(section.heads, section.rows)
        print()
    for line in ownreport.verdicts(purchase, rental):
        print(line)


def _purchase(given: dict[str, Any]) -> Purchase:
    from gridlease_simulate import owning, ownreport  # noqa: PLC0415

    idle_watts = given["idle_watts"]
    return owning.Purchase(
        price_nano=parse_money(given["price"], "--price"),
        devices=given["devices"],
        years_milli=ownreport.years_milli(given["years"]),
        residual_percent=given["residual"],
        busy_watts=given["watts"],
        idle_watts=given["watts"] if idle_watts < 0 else idle_watts,
        pue_milli=ownreport.pue_milli(given["pue"]),
        energy_nano_per_kwh=parse_money(given["energy_price"], "--energy-price"),
        hosting_nano_per_kw_month=parse_money(given["hosting"], "--hosting"),
        operations_percent_milli=ownreport.percent_milli(given["operations"], "--operations"),
        admin_nano_per_year=parse_money(given["admin"], "--admin"),
    )


def _rental(given: dict[str, Any]) -> Rental:
    from gridlease_simulate import owning, ownreport  # noqa: PLC0415

    spot_nano = parse_money(given["spot"], "--spot")
    if given["spot_prices"] is not None:
        spot_nano = ownreport.mean_spot_nano(
            given["spot_prices"], given["spot_zone"], given["chip"]
        )
    return owning.Rental(
        on_demand_nano=parse_money(given["rent"], "--rent"),
        reserved_nano=parse_money(given["reserved"], "--reserved"),
        spot_nano=spot_nano,
        interruptions_per_100h=given["interruptions"],
        checkpoint_ms=parse_duration(given["checkpoint"], "--checkpoint"),
        restart_ms=parse_duration(given["restart"], "--restart"),
    )
