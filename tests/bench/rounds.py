"""Who runs this round, and on which kind? Gavel's jobs in rounds, decided by the product's policy.

With a pipe as standard input it answers rounds: a line of JSON in,
``{"t": s, "free": {kind: n}, "jobs": [{"id", "scale", "left", "age", "got", "thr": {kind: …}}]}``,
and a line ``{"run": {id: kind}}`` out, to the end of input. Without a pipe it plays the seed-0 file
on 12 V100, 12 P100 and 12 K80 and prints figures beside first come first served and max-min
fairness. Every decision is ``rounds.decide`` of the scheduler's domain: nothing is decided here.
"""

import argparse
import json
import math
import os
import stat
import sys
from pathlib import Path

from gridlease_scheduler.domain.slow.rounds import Memory, RoundJob, decide

from . import figures
from .children import ROOT
from .round_replay import read, replay
from .round_rivals import Fifo, MaxMin

DATA = Path(ROOT).parent / "shared" / "data" / "gavel"


class BadRoundError(ValueError):
    """A line that is no round; the message names the field."""


class Product:
    """The production policy with its memory of the round before."""

    def __init__(self, unknown):
        self._unknown = unknown
        self._memory = Memory()

    def __call__(self, line):
        t_s, free, jobs = parsed(line, self._unknown)
        decision = decide(t_s, free, jobs, self._memory)
        self._memory = decision.memory
        return dict(decision.run)


def parsed(line, unknown):
    """(seconds, capacity, jobs) of a round; raises BadRoundError."""
    if not isinstance(line, dict):
        raise BadRoundError("a round must be an object")
    t_s = number(line, "t", "t", least=-math.inf)
    free = {kind: whole(line["free"], kind, f"free.{kind}", 0) for kind in entries(line, "free")}
    if not isinstance(line.get("jobs"), list):
        raise BadRoundError("jobs: a list is needed")
    jobs = [job(each, f"jobs[{at}]", unknown) for at, each in enumerate(line["jobs"])]
    seen = set()
    for at, each in enumerate(jobs):
        if each.name in seen:
            raise BadRoundError(f"jobs[{at}].id: {each.name} is there twice")
        seen.add(each.name)
    return t_s, free, jobs


def job(given, path, unknown):
    """One job of a round; ``left`` is not looked at where work is unknown."""
    if not isinstance(given, dict):
        raise BadRoundError(f"{path}: an object is needed")
    name = given.get("id")
    if isinstance(name, bool) or not isinstance(name, str | int) or name == "":
        raise BadRoundError(f"{path}.id: a string is needed")
    speeds = entries(given, "thr", f"{path}.thr")
    return RoundJob(
        name=str(name),
        scale=whole(given, "scale", f"{path}.scale", 1),
        steps_per_s={kind: number(given["thr"], kind, f"{path}.thr.{kind}") for kind in speeds},
        age_s=number(given, "age", f"{path}.age"),
        got_device_s=number(given, "got", f"{path}.got"),
        left_steps=None if unknown else number(given, "left", f"{path}.left"),
    )


def entries(given, field, path=None):
    """The keys of an object within an object."""
    if not isinstance(given.get(field), dict):
        raise BadRoundError(f"{path or field}: an object is needed")
    return list(given[field])


def number(given, field, path, least=0.0):
    """A finite number of at least ``least``."""
    value = given.get(field)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadRoundError(f"{path}: a number is needed")
    value = as_float(value)
    if not math.isfinite(value) or value < least:
        raise BadRoundError(f"{path}: a finite number of at least {least:g} is needed")
    return value


def as_float(value):
    try:
        return float(value)
    except OverflowError:
        return math.inf


def whole(given, field, path, least):
    """A whole number of at least ``least``; 12.0 is one."""
    value = number(given, field, path, least)
    if value != int(value):
        raise BadRoundError(f"{path}: a whole number is needed")
    return int(value)


def answer(source, target, unknown):
    """Answer every round of a pipe; 0, or 2 after a line that is no round."""
    policy = Product(unknown)
    for at, text in enumerate(source, start=1):
        if not text.strip():
            continue
        try:
            run = policy(json.loads(text))
        except json.JSONDecodeError as error:
            return refused(at, f"not JSON: {error}")
        except BadRoundError as error:
            return refused(at, error)
        target.write(json.dumps({"run": run}) + "\n")
        target.flush()
    return 0


def refused(at, why):
    print(f"line {at}: {why}", file=sys.stderr)
    return 2


def piped():
    """Is standard input something to read rounds from: a pipe, a socket or a file?"""
    try:
        mode = os.fstat(0).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or stat.S_ISREG(mode)


def measure(folder, gaps, unknown):
    """(the product's outcome, figures of the others) on the seed-0 file."""
    ours = replay(read(folder, gaps), Product(unknown))
    rivals = {
        "fifo": replay(read(folder, gaps), Fifo()).figures(),
        "max-min": replay(read(folder, gaps), MaxMin()).figures(),
    }
    return ours, rivals


def options_of(words):
    parser = argparse.ArgumentParser(prog="./dev bench rounds", description=__doc__)
    parser.add_argument("--unknown", action="store_true", help="do not use the remaining work")
    parser.add_argument("--data", type=Path, default=DATA, help="the folder of jobs and speeds")
    parser.add_argument("--gaps", type=float, default=1.0, help="0.65: arrivals that much denser")
    return parser.parse_args(words)


def main(words):
    options = options_of(words)
    if piped():
        return answer(sys.stdin, sys.stdout, options.unknown)
    head = {"bench": "rounds", "machine": figures.machine()}
    if not (options.data / "throughputs.csv.gz").exists():
        print(f"skipped: no jobs in {options.data}; name their folder with --data.")
        figures.last_line(**head, skipped=["no jobs"], results={}, baseline={})
        return 0
    ours, rivals = measure(options.data, options.gaps, options.unknown)
    results = ours.figures()
    known = "unknown" if options.unknown else "known"
    lines = [
        (name, *(f"{each[key]:.2f}" for key in results))
        for name, each in ((f"ours, work {known}", results), *rivals.items())
    ]
    figures.table(f"Jobs of seed 0, gaps x{options.gaps:g}", ("policy", *results), lines)
    times = ours.decide()
    figures.table("Decisions, CPU time", tuple(times), [[f"{ms:.2f}" for ms in times.values()]])
    figures.last_line(
        **head,
        work=known,
        gaps=options.gaps,
        decide_ms=figures.rounded(times),
        results=figures.rounded(results, 5),
        baseline=figures.rounded(rivals, 5),
        ratio={name: round(results["avg_jct_h"] / each["avg_jct_h"], 4)
               for name, each in rivals.items()},
    )  # fmt: skip
    return 0
