"""``./dev sim billing``: randomised events until as many as asked for, and what they found."""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import time

from tests.sim.money.run import WORLD, Outcome, world


def _world(job):
    logging.disable(logging.CRITICAL)  # lies and crashes are meant
    return world(*job)


def in_memory(seed, events, processes=2, each=WORLD):
    """Worlds of a run until they have had as many events."""
    jobs = ((seed, n, each) for n in range(events // each + len(range(processes)) + 1))
    total = Outcome()
    if processes == 1:
        for job in jobs:
            if total.events >= events:
                break
            total.add(_world(job))
        return total
    with multiprocessing.get_context("spawn").Pool(processes, maxtasksperchild=50) as pool:
        for outcome in pool.imap_unordered(_world, jobs):
            if total.add(outcome).events >= events or total.broken:
                break
        pool.terminate()
    return total


def main(arguments):
    parser = argparse.ArgumentParser(prog="./dev sim billing", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="one seed = one run (1)")
    parser.add_argument("--events", type=int, help="events (10000000; --postgres: 1000000)")
    parser.add_argument(
        "--world",
        type=int,
        help="only this world of the run (--postgres: from this one on), to look at a fault",
    )
    parser.add_argument("--profile", help="of that world, instead of its own")
    parser.add_argument("--processes", type=int, default=2, help="at a time (2)")
    parser.add_argument("--postgres", action="store_true", help="real PostgreSQL, killed at times")
    options = parser.parse_args(arguments)
    began = time.perf_counter()
    if options.postgres:
        from tests.sim.money import postgres

        total = postgres.run(options.seed, options.events or 1_000_000)
    elif options.world is not None:
        logging.disable(logging.CRITICAL)
        each = options.events or WORLD
        total = world(options.seed, options.world, each, options.profile)
    else:
        total = in_memory(options.seed, options.events or 10_000_000, options.processes)
    return report(total, options, time.perf_counter() - began)


def report(total, options, wall_s):
    """Prints what a run found; its exit code."""
    for kind, count in sorted(total.met.items()):
        print(f"  {kind:<24} {count:>12,}")
    for line in total.broken:
        print(f"BROKEN {line}")
    results = {
        "seed": options.seed,
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
    print(json.dumps({"sim": "billing", "results": results}))
    return 1 if total.broken or total.drift_nano else 0
