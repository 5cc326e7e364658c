"""``./dev sim billing``: randomised events until as many as asked for, and what they found.

First in memory, then on real PostgreSQL whose backends and server are killed.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import sys
import time

from tests.sim.money.run import WORLD, Outcome, world

IN_MEMORY, ON_POSTGRES = 10_000_000, 1_000_000
_SAY_EVERY_S = 10.0


def _world(job):
    logging.disable(logging.CRITICAL)  # lies and crashes are meant
    return world(*job)


def in_memory(seed, events, processes=2, each=WORLD, told=None):
    """Worlds of a run until they have had as many events. ``told``: as ``postgres.run``."""
    jobs = ((seed, n, each) for n in range(events // each + len(range(processes)) + 1))
    total = Outcome()
    with multiprocessing.get_context("spawn").Pool(processes, maxtasksperchild=50) as pool:
        for outcome in pool.imap_unordered(_world, jobs):
            total.add(outcome)
            if told is not None:
                told(total)
            if total.events >= events or total.broken:
                break
        pool.terminate()
    return total


class Progress:
    """Lines on stderr while a run lasts."""

    def __init__(self, part, events):
        self._part, self._events = part, events
        self._began = self._said = time.perf_counter()

    def __call__(self, total):
        now = time.perf_counter()
        if now - self._said < _SAY_EVERY_S and not total.broken:
            return
        self._said = now
        rate = total.events / (now - self._began)
        left_s = max(0, self._events - total.events) / rate
        print(
            f"{self._part}: {total.events:,} of {self._events:,} events in {total.worlds} worlds,"
            f" {rate:,.0f}/s, about {left_s / 60:.1f} min left; drift {total.drift_nano},"
            f" broken {len(total.broken)}",
            file=sys.stderr,
            flush=True,
        )


def main(arguments):
    parser = argparse.ArgumentParser(
        prog="./dev sim billing",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--memory", action="store_true", help="only the part in memory")
    parser.add_argument("--postgres", action="store_true", help="only the part on PostgreSQL")
    parser.add_argument("--seed", type=int, default=1, help="one seed = one run (1)")
    parser.add_argument(
        "--events",
        type=int,
        help=f"of each part ({IN_MEMORY} in memory, {ON_POSTGRES} on PostgreSQL)",
    )
    parser.add_argument(
        "--world", type=int, help="only this world of the run, to look at a fault (with one part)"
    )
    parser.add_argument("--profile", help="of that world in memory, instead of its own")
    parser.add_argument("--processes", type=int, default=2, help="at a time (2)")
    options = parser.parse_args(arguments)
    if options.world is not None and options.memory == options.postgres:
        parser.error("--world: say of which part, --memory or --postgres")
    logging.disable(logging.CRITICAL)  # lies, jumps and crashes are meant
    both = options.memory == options.postgres
    results = {}
    if options.memory or both:
        results["memory"] = _part("memory", options, _memory)
    if options.postgres or both:
        results["postgres"] = _part("postgres", options, _postgres)
    print(json.dumps({"sim": "billing", "seed": options.seed, "results": results}))
    return 1 if any(it["broken"] or it["drift_nano"] for it in results.values()) else 0


def _memory(options):
    if options.world is not None:
        return world(options.seed, options.world, options.events or WORLD, options.profile)
    events = options.events or IN_MEMORY
    return in_memory(options.seed, events, options.processes, told=Progress("memory", events))


def _postgres(options):
    from tests.sim.money import bills, postgres

    if options.world is not None:
        return postgres.run(
            options.seed,
            options.events or postgres.WORLD,
            each=options.events or postgres.WORLD,
            worlds=[options.world],
            each_end=bills.verified,
        )
    events = options.events or ON_POSTGRES
    return postgres.run(
        options.seed,
        events,
        processes=options.processes,
        each_end=bills.verified,
        told=Progress("postgres", events),
    )


def _part(name, options, work):
    """Runs a part, prints what it met, and answers what it found."""
    began = time.perf_counter()
    total = work(options)
    wall_s = time.perf_counter() - began
    print(f"{name}:")
    for kind, count in sorted(total.met.items()):
        print(f"  {kind:<24} {count:>12,}")
    for line in total.broken:
        print(f"BROKEN {line}")
    return {
        "worlds": total.worlds,
        "events": total.events,
        "calls": total.calls,
        "leases": total.leases,
        "charged_nano": total.told_nano,
        "late_nano": total.late_nano,
        "drift_nano": total.drift_nano,
        "broken": len(total.broken),
        "events_per_s": round(total.events / wall_s),
        "wall_s": round(wall_s, 1),
    }
