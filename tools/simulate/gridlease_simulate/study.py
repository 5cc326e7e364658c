"""What one call of ``gridlease simulate`` plays: a trace on a cluster, and what to compare."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gridlease_scheduler.domain.job import Purpose

from gridlease_simulate import clusterfile, spot, traces
from gridlease_simulate.changes import changed
from gridlease_simulate.cluster import Cluster, resolve
from gridlease_simulate.fields import nearest, wrong
from gridlease_simulate.outcome import Outcome
from gridlease_simulate.policies import POLICIES
from gridlease_simulate.replay import Replay
from gridlease_simulate.rules import Progress, Rules
from gridlease_simulate.workload import Trace, prepared

MOST_SHARES = 16
Watch = Callable[[str, Progress], None]


@dataclass(frozen=True, slots=True)
class Study:
    """All that is asked for. ``baseline``: a policy to compare with, or empty."""

    cluster: Path
    trace: Path
    add: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()
    compare: bool = False
    baseline: str = ""
    share: int = 1
    sample: int = 0
    limit: int = 0
    seed: int = 1
    load_percent: int = 100
    stated_percent: int = 0
    until_ms: int = 0
    rest_ms: int = 0
    purpose: str = "training"
    reference: str = ""
    checkpoint_ms: int = 900_000
    restart_ms: int = 30_000
    notice_ms: int = 30_000
    throughputs: Path | None = None
    spot_prices: Path | None = None
    spot_zone: str = ""


def play(study: Study, watch: Watch | None = None) -> dict[str, Outcome]:
    """Every run of a study, by its name.

    Raises:
        Invalid, Missing: a mistake in the files or options, with field and remedy.
    """
    before = clusterfile.load(study.cluster).split(_shares(study.share))
    after = changed(before, study.add, study.remove)
    if study.compare and not (study.add or study.remove):
        raise _nothing_to_compare()
    if study.baseline and study.baseline not in POLICIES:
        raise wrong(
            f"There is no policy {study.baseline!r}.",
            reason="UNKNOWN_POLICY",
            field="--baseline",
            remedy=nearest(study.baseline, POLICIES),
        )
    rules = _rules(study, before)
    plays = [("after" if study.compare else "gridlease", after, "gridlease")]
    if study.compare:
        plays.insert(0, ("before", before, "gridlease"))
    if study.baseline:
        plays.append((study.baseline, after, study.baseline))
    found: dict[str, Outcome] = {}
    for name, cluster, policy in plays:
        trace = _trace(study, cluster)
        replay = Replay(cluster, trace, POLICIES[policy], rules)
        found[name] = replay.run(_watching(watch, name))
    return found


def _watching(watch: Watch | None, name: str) -> Callable[[Progress], None] | None:
    if watch is None:
        return None
    return lambda progress: watch(name, progress)


def _shares(share: int) -> int:
    if not 1 <= share <= MOST_SHARES:
        raise wrong(
            f"A device cannot be split into {share} parts.",
            reason="BAD_NUMBER",
            field="--share",
            remedy=f"Choose from 1 (whole devices) to {MOST_SHARES}.",
        )
    return share


def _rules(study: Study, cluster: Cluster) -> Rules:
    reference = study.reference
    if reference:
        reference = resolve(cluster.catalogue, reference, "--reference-chip").name
    prices = None
    if study.spot_prices is not None:
        prices = spot.load(study.spot_prices, cluster.catalogue, study.spot_zone)
    return Rules(
        checkpoint_ms=study.checkpoint_ms,
        restart_ms=study.restart_ms,
        notice_ms=study.notice_ms,
        until_ms=study.until_ms,
        rest_ms=study.rest_ms,
        reference=reference,
        spot=prices,
    )


def _trace(study: Study, cluster: Cluster) -> Trace:
    if study.load_percent < 1:
        raise wrong(
            "A load must be at least 1 percent.",
            reason="BAD_NUMBER",
            field="--load",
            remedy="Write 100 for the trace as it is, 200 for twice as many jobs an hour.",
        )
    try:
        purpose = Purpose(study.purpose.upper())
    except ValueError as error:
        raise wrong(
            f"There is no purpose {study.purpose!r}.",
            reason="UNKNOWN_PURPOSE",
            field="--purpose",
            remedy=f"Choose one of: {', '.join(each.value.lower() for each in Purpose)}.",
        ) from error
    reading = traces.Reading(
        cluster.catalogue, cluster.widest(), cluster.slices, study.throughputs, purpose
    )
    return prepared(
        traces.load(study.trace, reading),
        sample=study.sample,
        limit=study.limit,
        seed=study.seed,
        load=study.load_percent,
        stated=study.stated_percent,
    )


def _nothing_to_compare() -> Exception:
    return wrong(
        "There is nothing to compare.",
        reason="NOTHING_CHANGED",
        field="--compare",
        remedy='Say what changes, such as --add "2 x H100-80GB:8" or --remove "1 x l4".',
    )
