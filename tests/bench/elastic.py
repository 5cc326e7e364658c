"""How soon do elastic training jobs end? The product's policy, FIFO and a Sia-like optimiser.

With a pipe as standard input (and no option) it is an adapter: one JSON object per line in, one
per line out, each decided by the scheduler's own ``elastic.decide``; it holds no policy of its own.
Otherwise it replays the published workloads of Sia (SOSP'23) in rounds of 60 s and prints a table.
"""

import argparse
import json
import os
import stat
import statistics
import sys
import time
from contextlib import contextmanager
from pathlib import Path

from gridlease_scheduler.domain.sizing.elastic import Snapshot, decide
from gridlease_scheduler.domain.sizing.lessons import Lessons, Row, Trainee
from gridlease_scheduler.domain.sizing.seats import Held, Host

from . import figures

WORKLOADS = "saturn-1,saturn-2,saturn-3,saturn-4,saturn-5,philly-1,philly-2,philly-3,philly-4"
QUICK_JOBS = 40
MEASURES = ("avg_s", "p50_s", "p99_s", "makespan_s", "gpu_h", "restarts")


class Adapter:
    """Lines of JSON in and out, and what the policy has learned between them."""

    def __init__(self):
        self.lessons = Lessons()

    def answer(self, line):
        """One round."""
        given = json.loads(line)
        hosts = tuple(Host(str(it["i"]), it["kind"], it["gpus"]) for it in given["nodes"])
        jobs = tuple(trainee(it) for it in given["jobs"])
        snapshot = Snapshot(given["t"], hosts, jobs)
        found, self.lessons = decide(snapshot, self.lessons)
        alloc = {name: {"kind": it.chip, "nodes": dict(it.nodes)} for name, it in found.items()}
        return json.dumps({"alloc": alloc})


def trainee(given):
    """A job of the protocol as the domain sees it."""
    alloc = given["alloc"]
    held = alloc and Held(alloc["kind"], tuple(sorted(alloc["nodes"].items())))
    return Trainee(
        name=given["id"],
        app=given["app"],
        age_s=given["age"],
        done=given["done"],
        held=held,
        restart_left_s=given["restart_left"],
        restart_s=given["restart_s"],
        restarts=given["restarts"],
        device_s=given["gpu_s"],
        hint=given["tuned_gpus"],
        least=given["min_gpus"],
        most=given["max_gpus"],
        seen=given["seen_gpus"],
        rows={
            chip: tuple(Row(int(n), int(nodes), rate) for n, nodes, rate in rows)
            for chip, rows in given["goodput"].items()
        },
    )


def serve(source, target):
    """Answers until the input ends."""
    adapter = Adapter()
    for line in source:
        if line.strip():
            target.write(adapter.answer(line) + "\n")
            target.flush()
    return 0


class Ours:
    """The adapter as the simulator's policy, timed with its JSON."""

    def __init__(self):
        self.adapter = Adapter()
        self.wall_ms, self.cpu_ms = [], []

    def __call__(self, snapshot):
        line = json.dumps(snapshot)
        wall, cpu = time.perf_counter(), time.process_time()
        answer = self.adapter.answer(line)
        self.wall_ms.append((time.perf_counter() - wall) * 1e3)
        self.cpu_ms.append((time.process_time() - cpu) * 1e3)
        return json.loads(answer)["alloc"]

    def spans(self):
        return {
            "decision_p50_ms": figures.percentile(sorted(self.wall_ms), 0.5),
            "decision_p99_ms": figures.percentile(sorted(self.wall_ms), 0.99),
            "decision_cpu_p99_ms": figures.percentile(sorted(self.cpu_ms), 0.99),
        }


@contextmanager
def solver_on_stderr():
    """HiGHS writes notes on file 1, where only the outcome belongs."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def compare(profiles, options, name):
    """One workload under three policies: {policy: figures}."""
    from . import elastic_rivals as rivals
    from .elastic_world import World, workload

    trace, number = name.rsplit("-", 1)

    def world(**more):
        jobs = workload(options.data, trace, number, QUICK_JOBS if options.quick else None)
        assert jobs, f"no workload named {name}"
        return World(profiles, jobs, noise=options.noise, seed=options.seed, **more)

    ours = Ours()
    found = {"ours": world().run(ours) | ours.spans()}
    figures.note(f"{name}: the policy is done")
    with solver_on_stderr():
        found["sia_like"] = world().run(rivals.Sia())
    figures.note(f"{name}: the Sia-like optimiser is done")
    found["fifo"] = world(fixed=True).run(rivals.fifo)
    return found


def ratios(found):
    """Means over workloads of ours against the rivals'."""
    outcome = {
        key: statistics.fmean(each["ours"][key] / each["sia_like"][key] for each in found.values())
        for key in MEASURES
    }
    outcome["avg_s_vs_fifo"] = statistics.fmean(
        each["ours"]["avg_s"] / each["fifo"]["avg_s"] for each in found.values()
    )
    return outcome


def lines(found):
    for name, policies in found.items():
        for label in ("fifo", "sia_like", "ours"):
            each = policies[label]
            spans = [f"{each[key]:,.0f}" for key in ("avg_s", "p50_s", "p99_s", "makespan_s")]
            late = f"{each['decision_p99_ms']:.0f}" if label == "ours" else ""
            yield name, label, *spans, f"{each['gpu_h']:.2f}", f"{each['restarts']:.2f}", late


def options_of(words):
    from .elastic_world import DATA

    parser = argparse.ArgumentParser(prog="./dev bench elastic", description=__doc__)
    parser.add_argument("--workloads", default=WORKLOADS, help="saturn-1,…5, philly-1,…4")
    parser.add_argument("--noise", type=float, default=0.0, help="log-sd of rows not yet run: 0.2")
    parser.add_argument("--seed", type=int, default=0, help="of the noise")
    parser.add_argument(
        "--quick", action="store_true", help=f"the first {QUICK_JOBS} jobs, saturn-1"
    )
    parser.add_argument("--data", type=Path, default=DATA, help="the folder of the profiles")
    options = parser.parse_args(words)
    if options.quick and options.workloads == WORKLOADS:
        options.workloads = "saturn-1"
    return options


def piped():
    """Is standard input a pipe?"""
    mode = os.fstat(0).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


def main(words):
    if not words and piped():
        return serve(sys.stdin, sys.stdout)
    options = options_of(words)
    head = {"bench": "elastic", "machine": figures.machine()}
    if not (options.data / "workloads.csv.gz").exists():
        print(f"skipped: no profiles in {options.data}; name a folder with --data.")
        figures.last_line(**head, skipped=["no profiles"], results={}, baseline={}, ratio={})
        return 0
    from .elastic_world import Profiles

    profiles = Profiles(options.data)
    found = {name: compare(profiles, options, name) for name in options.workloads.split(",")}
    columns = ("workload", "policy", "avg s", "p50 s", "p99 s", "makespan s")
    columns += ("GPU-h per job", "restarts per job", "decision p99 ms")
    figures.table("Completion of elastic jobs", columns, lines(found))
    ratio = ratios(found)
    figures.table(
        "Ours against the Sia-like optimiser, mean over workloads",
        tuple(ratio),
        [[f"{each:.3f}" for each in ratio.values()]],
    )
    keep = {
        policy: {name: each[policy] for name, each in found.items()}
        for policy in ("ours", "fifo", "sia_like")
    }
    figures.last_line(
        **head,
        noise=options.noise,
        results=figures.rounded(keep.pop("ours"), 4),
        baseline=figures.rounded(keep, 4),
        ratio=figures.rounded(ratio, 4),
    )
    return 0
