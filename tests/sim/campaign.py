"""Many seeds, in as many processes as asked for."""

from __future__ import annotations

import multiprocessing

from tests.sim.cluster import Cluster
from tests.sim.rules import Rules
from tests.sim.world import Profile, Violation


def violation(
    seed: int, rules: type[Rules] = Rules, profile: Profile | None = None
) -> Violation | None:
    """Runs one seed; None = every invariant held."""
    try:
        Cluster(seed, rules(), profile=profile).run()
    except Violation as broken:
        return broken
    return None


def violations(seeds: range) -> list[str]:
    """What broke in these seeds; each line names the seed that shows it."""
    broken = (violation(seed) for seed in seeds)
    return [f"{x.args[0]}: {x.args[1]}" for x in broken if x is not None]


def campaign(seeds: range, processes: int) -> list[str]:
    """``violations`` of many seeds, in chunks over processes."""
    chunks = [seeds[i : i + 250] for i in range(0, len(seeds), 250)]
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        return [line for lines in pool.imap_unordered(violations, chunks) for line in lines]


def caught(rules: type[Rules], invariant: str, seeds: range, profile: Profile | None) -> int | None:
    """The first seed that breaks ``invariant`` under a trap's rules; None = not caught."""
    for seed in seeds:
        broken = violation(seed, rules, profile)
        if broken is not None and broken.args[0] == invariant:
            return seed
    return None
