"""``./dev bench preempt``: how fast and how well it is decided who gives way.

Two questions. On a large cluster where every device is held: how long does the planner take to
choose the victims of a critical gang, and to place it once the last of them is gone? On small
clusters, where HiGHS finds the optimum: how much more work is lost than need be?
"""

import argparse
import random
import time
from dataclasses import replace

from gridlease_scheduler.domain.eviction.preempt import Eviction, choose
from gridlease_scheduler.domain.job import Span, Tier
from gridlease_scheduler.domain.placing.index import Index
from gridlease_scheduler.domain.placing.vacancy import Vacancies
from gridlease_scheduler.domain.plan import Placed, Planner
from gridlease_scheduler.domain.ruling import rule
from gridlease_scheduler.domain.snapshot import Snapshot

from tests.bench import figures
from tests.bench.full_cluster import by_milp, full_cluster
from tests.unit.scheduler.standing import CATALOGUE, HOUR, node, waits

NOW = 1_000 * HOUR
# (devices of a member, members, how near): 64 devices each
GANGS = ((8, 8, Span.ANY), (1, 64, Span.ANY), (4, 16, Span.ANY), (8, 8, Span.RACK))


def fleet(names, leases):
    """Nodes in racks of 32, with what the leases leave of them."""
    held = {}
    for lease in leases:
        held.setdefault(lease.node_id, []).append(lease)
    return [
        node(name, running=held.get(name, ()), rack=f"r{at // 32}") for at, name in enumerate(names)
    ]


def cpu_ms(function):
    """What a call answers, and the CPU time it took."""
    begin = time.process_time()
    answer = function()
    return answer, 1_000 * (time.process_time() - begin)


def critical(seed, names, nodes, leases, behind):
    """One gang from "everything is full" to its placement: CPU ms of the choice, of the placing
    pass, and how many passes it took once all was free."""
    count, tasks, span = GANGS[seed % len(GANGS)]
    gang = waits("critical", 10**6, count=count, tasks=tasks, priority=100, need={"span": span})
    world = Snapshot(
        nodes=tuple(nodes), pending=(gang, *behind), catalogue=CATALOGUE, running=tuple(leases),
        now_ms=NOW,
    )  # fmt: skip
    answer, choosing = cpu_ms(lambda: choose(gang, nodes, leases, CATALOGUE))
    planner, vacancies = Planner(Index(nodes, CATALOGUE)), Vacancies()
    ruling = rule(world, planner, vacancies=vacancies)
    assert isinstance(answer, Eviction)
    gone = {victim.job for eviction in ruling.evictions for victim in eviction.victims}
    assert gone == {x.job for x in answer.victims}
    left = [x for x in leases if x.job not in gone]
    freed = {x.node_id for x in leases if x.job in gone}
    at = {name: place for place, name in enumerate(names)}
    mine = [x for x in left if x.node_id in freed]
    for name in sorted(freed):  # the last victim lease is CLOSED, its devices are clean
        planner.index.replace(node(name, running=mine, rack=f"r{at[name] // 32}"))
    after = replace(world, nodes=planner.index.views(), running=tuple(left))
    for passes in range(1, 10):
        ruling, placing = cpu_ms(lambda: rule(after, planner, vacancies=vacancies))
        if isinstance(ruling.decisions[0], Placed):
            return choosing, placing, passes, len(gone), answer.lost
    raise AssertionError("the gang was never placed")


def nearest(task, leases, names):
    """A simple rule to compare with: empty the nodes that lose the least, one after another."""
    speeds = {chip.name: chip.throughput for chip in CATALOGUE.chips}
    need = -(-task.tasks * task.needs.accelerator.count // 8)
    jobs = {}
    for lease in leases:
        jobs.setdefault(lease.job, []).append(lease)
    on = {name: {x.job for x in leases if x.node_id == name} for name in names}

    def lost(victims):
        return sum(
            x.allocation.quantity_milli * (x.worked_ms - x.saved_ms) * speeds[x.allocation.chip]
            for job in victims
            for x in jobs[job]
        )

    order = sorted(names, key=lambda name: lost(on[name]))
    return lost({job for name in order[:need] for job in on[name]}) // 100


def small(seed):
    """Work lost on a small full cluster: ours, the simple rule's, and the least possible."""
    rand = random.Random(seed)
    names = [f"n{at}" for at in range(10)]
    leases = full_cluster(rand, names, 8)
    count = rand.choice((1, 2, 4, 8))
    task = waits("new", count=count, tasks=rand.randrange(1, 1 + 32 // count))
    answer = choose(task, [node(x, running=leases) for x in names], leases, CATALOGUE)
    best = by_milp(task, names, leases)
    return answer.lost, nearest(task, leases, names), best


def main(words):
    parser = argparse.ArgumentParser(prog="./dev bench preempt", description=__doc__)
    parser.add_argument("--nodes", type=int, default=1_000)
    parser.add_argument("--gangs", type=int, default=40, help="critical gangs, one after another")
    parser.add_argument("--queue", type=int, default=2_000, help="jobs that wait behind the gang")
    parser.add_argument("--small", type=int, default=60, help="clusters to compare with HiGHS")
    options = parser.parse_args(words)
    machine = figures.machine()
    names = [f"n{at:05}" for at in range(options.nodes)]
    leases = full_cluster(random.Random(0), names, options.nodes // 10)
    nodes = fleet(names, leases)
    figures.note(f"{options.nodes} nodes, {len(leases)} leases, all devices held")
    behind = [
        waits(f"later{at}", 10**6 + at, count=1 + at % 8, tier=Tier.SPOT, tenant=f"t{at % 50}")
        for at in range(1, options.queue + 1)
    ]
    runs = [critical(seed, names, nodes, leases, behind) for seed in range(options.gangs)]
    choosing, placing = sorted(x[0] for x in runs), sorted(x[1] for x in runs)
    lost = [small(seed) for seed in range(options.small)]
    ours, simple, least = (sum(column) for column in zip(*lost, strict=True))
    worst = max(x / best if best else 1.0 for x, _, best in lost)
    results = {
        "nodes": options.nodes,
        "choose_ms_p50": figures.percentile(choosing, 0.5),
        "choose_ms_p99": figures.percentile(choosing, 0.99),
        "place_ms_p50": figures.percentile(placing, 0.5),
        "place_ms_p99": figures.percentile(placing, 0.99),
        "passes_to_place": max(x[2] for x in runs),
        "lost_work_vs_optimum": ours / least,
        "lost_work_vs_optimum_worst": worst,
    }
    baseline = {"lost_work_vs_optimum": simple / least}
    figures.table(
        f"A critical gang of 64 devices on a full cluster ({machine})",
        ["what", "p50 or all", "p99 or worst"],
        [
            ["choose the victims, CPU ms", f"{results['choose_ms_p50']:.1f}",
             f"{results['choose_ms_p99']:.1f}"],
            ["place it once they are gone, CPU ms", f"{results['place_ms_p50']:.1f}",
             f"{results['place_ms_p99']:.1f}"],
            ["passes until it is placed", "1", results["passes_to_place"]],
            [f"work lost / optimum, {options.small} small clusters",
             f"{results['lost_work_vs_optimum']:.3f}", f"{worst:.3f}"],
            ["the same, emptying the nodes that lose least",
             f"{baseline['lost_work_vs_optimum']:.3f}", ""],
        ],
    )  # fmt: skip
    figures.last_line(
        bench="preempt",
        results=figures.rounded(results),
        baseline=figures.rounded(baseline),
        ratio={"lost_work": round(ours / simple, 3)},
    )
    return 0
