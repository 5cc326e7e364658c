"""How much of a fleet's accelerators can be given away? FGD's experiment, and FGD beside it.

Pods are shuffled by the seed and then drawn at random until the devices asked for reach 130 % of
the fleet's; each arrives once, in that order, and is placed, or dropped where nothing has room.
Nodes without accelerators are left out. Every decision is the product's own (``packing.Fleet`` and
``moves.Mover`` of the scheduler's domain): this file reads, replays and recounts.
"""

import argparse
import csv
import gzip
import random
import statistics
import time
from collections import Counter
from pathlib import Path

from gridlease_scheduler.domain.placing.fragmentation import WHOLE, Request, Room
from gridlease_scheduler.domain.placing.moves import Mover
from gridlease_scheduler.domain.placing.packing import Fleet, in_order

from . import figures
from .children import ROOT
from .fgd import Fgd

DATA = Path(ROOT).parent / "shared" / "data" / "alibaba-gpu-v2023"
VARIANTS = "default,multigpu50,cpu250,gpuspec33,gpushare100"
LAST_PERCENT = 130


NODE_COLUMNS = ("sn", "cpu_milli", "memory_mib", "gpu", "model")
POD_COLUMNS = ("name", "cpu_milli", "memory_mib", "num_gpu", "gpu_milli")  # and gpu_spec, if any


def rows(path, needed):
    """The lines of a CSV file, packed or not; the bench ends where a column is missing."""
    try:
        content = Path(path).read_bytes()
    except OSError as trouble:
        raise SystemExit(f"packing: cannot read {path}: {trouble.strerror}") from trouble
    if content[:2] == b"\x1f\x8b":
        content = gzip.decompress(content)
    found = csv.DictReader(content.decode("utf-8-sig").splitlines())
    missing = [column for column in needed if column not in (found.fieldnames or ())]
    if missing:
        there = ", ".join(found.fieldnames or ("nothing",))
        raise SystemExit(f"packing: {path} has no column {', '.join(missing)}; it has {there}")
    return found


def read_nodes(path):
    """Rooms by name, as the file orders them."""
    return {
        row["sn"]: Room(
            row["model"],
            int(row["cpu_milli"]),
            int(row["memory_mib"]),
            (WHOLE,) * int(row["gpu"]),
        )
        for row in rows(path, NODE_COLUMNS)
        if int(row["gpu"] or 0)
    }


def read_pods(path):
    """(name, request) a pod."""
    found = []
    for row in rows(path, POD_COLUMNS):
        devices = int(row["num_gpu"] or 0)
        milli = WHOLE if devices > 1 else int(row["gpu_milli"] or 0) if devices else 0
        chips = frozenset(each for each in (row.get("gpu_spec") or "").split("|") if each)
        cpu, memory = int(row["cpu_milli"]), int(row["memory_mib"])
        found.append((row["name"], Request(cpu, memory, devices, milli, chips)))
    return found


def stream(pods, seed, capacity_milli):
    """Arrivals until the devices asked for reach 130 %; a pod drawn again is named NAME#2, …"""
    chance = random.Random(seed)
    shuffled = list(pods)
    chance.shuffle(shuffled)
    asked, times = 0, Counter()
    while asked * 100 < LAST_PERCENT * capacity_milli:
        name, request = shuffled.pop(0) if shuffled else chance.choice(pods)
        times[name] += 1
        yield (name if times[name] == 1 else f"{name}#{times[name]}"), request
        asked += request.asked_milli


def replay(arrivals, fleet, mover, capacity_milli, line):
    """The promised figures of one run; ``line(kind, pod, node, taken, milli)`` records it."""
    asked = allocated = arrived = dropped = 0
    outcome = {
        "allocated_percent": {},
        "cpu_only_dropped": 0,
        "moves_per_pod": 0.0,
        "pods_per_s": 0,
    }
    began = time.perf_counter()
    for name, request in arrivals:
        asked, arrived = asked + request.asked_milli, arrived + 1
        fleet.arrive(request)
        spot = fleet.best(request)
        repair = mover.repair(request) if spot is None and mover else None
        if repair is not None:
            mover.apply(name, request, repair)
            for move in repair.moves:
                milli = move.request.device_milli
                line("move", move.name, move.spot.node, move.spot.taken, milli)
            spot = repair.spot
        elif spot is not None:
            fleet.put(name, request, spot.node, spot.taken)
        if spot is None:
            dropped += not request.devices
            line("drop", name, None, (), request.device_milli)
        else:
            allocated += request.asked_milli
            line("arrive", name, spot.node, spot.taken, request.device_milli)
        percent = asked * 100 // capacity_milli
        if percent >= 100 and "100" not in outcome["allocated_percent"]:
            outcome["allocated_percent"]["100"] = allocated / capacity_milli * 100
            outcome["cpu_only_dropped"] = dropped
            outcome["moves_per_pod"] = mover.made / arrived if mover else 0.0
    outcome["allocated_percent"]["130"] = allocated / capacity_milli * 100
    outcome["pods_per_s"] = round(arrived / (time.perf_counter() - began))
    return outcome


def recount(fresh, fleet, allocated):
    """Do the residents fit on the nodes, device by device, and add up to what was reported?"""
    total = 0
    for before, now, residents in zip(fresh, fleet.rooms, fleet.residents, strict=True):
        cpu, memory, free = before.cpu_milli, before.memory_mib, list(before.free)
        for request, taken in residents.values():
            assert len(set(taken)) == request.devices
            assert not request.chips or before.chip in request.chips
            cpu, memory = cpu - request.cpu_milli, memory - request.memory_mib
            for device in taken:
                free[device] -= request.device_milli
            total += request.asked_milli
        assert min(cpu, memory, *free) >= 0
        assert Room(before.chip, cpu, memory, tuple(free)) == now
    capacity = sum(len(room.free) for room in fresh) * WHOLE
    assert abs(total / capacity * 100 - allocated) < 1e-9


def measure(nodes, pods, seed, moves_per_pod, out=None):
    """(the product's figures, FGD's figures) on one stream."""
    capacity = sum(len(room.free) for room in nodes.values()) * WHOLE
    arrivals = list(stream(pods, seed, capacity))
    names = in_order(nodes)
    fleet = Fleet([nodes[name] for name in names])
    mover = Mover(fleet, moves_per_pod) if moves_per_pod else None
    log = []

    def line(kind, pod, node, taken, milli):
        devices = "|".join(str(device) for device in taken)
        log.append((len(log), kind, pod, "" if node is None else names[node], devices, milli))

    ours = replay(arrivals, fleet, mover, capacity, line)
    recount([nodes[name] for name in names], fleet, ours["allocated_percent"]["130"])
    if out:
        with Path(out).open("w", newline="") as target:
            writer = csv.writer(target)
            writer.writerow(("order", "kind", "pod", "node", "gpus", "gpu_milli"))
            writer.writerows(log)
    rival = Fgd(nodes.values(), Counter(request for _, request in pods))
    theirs = replay(arrivals, rival, None, capacity, lambda *_: None)
    return ours, theirs


def mean(found):
    """The mean over seeds of nested figures."""
    first = found[0]
    if isinstance(first, dict):
        return {key: mean([each[key] for each in found]) for key in first}
    return statistics.fmean(found)


def several(options):
    """Variants of the trace, each over the seeds: a table, and the means."""
    nodes = read_nodes(options.nodes or options.data / "nodes.csv.gz")
    seeds = [int(each) for each in options.seeds.split(",")]
    results, rivals, lines = {}, {}, []
    for variant in options.variants.split(","):
        pods = variant_pods(options.data, variant)
        runs = [measure(nodes, pods, seed, options.moves_per_pod) for seed in seeds]
        for seed, pair in zip(seeds, runs, strict=True):
            lines.append((variant, seed, *cells(*pair)))
        results[variant], rivals[variant] = (mean([each[i] for each in runs]) for i in (0, 1))
        lines.append((variant, "mean", *cells(results[variant], rivals[variant])))
    head = ("pods", "seed", "at 100 %", "FGD", "at 130 %", "FGD", "CPU-only dropped", "FGD")
    figures.table("Devices given away, percent", (*head, "moves per pod", "pods/s"), lines)
    return results, rivals


def variant_pods(data, variant):
    """The pods of one file, of several joined by +, or of a made mix, ``mixN``."""
    if variant.startswith("mix"):
        return made_mix(data, variant[3:])
    parts = [read_pods(data / f"pods_{each}.csv.gz") for each in variant.split("+")]
    if len(parts) == 1:
        return parts[0]
    return [(f"{i}/{name}", it) for i, part in enumerate(parts) for name, it in part]


def made_mix(data, number):
    """8,000 pods drawn anew, each kind of pod more or less often than in the trace, by chance."""
    chance = random.Random(f"m{number}")
    pool = read_pods(data / f"pods_{'default' if chance.random() < 0.6 else 'gpuspec33'}.csv.gz")
    often = {
        "cpus alone": chance.choice((0.3, 1, 1.6, 2.2)),
        "share": chance.choice((0.4, 1, 2)),
        "one": chance.choice((0.5, 1, 1.5)),
        "several": chance.choice((0.5, 3, 8)),
        "eight": chance.choice((0.4, 2, 5)),
    }
    weights = [often[kind(request)] for _, request in pool]
    drawn = chance.choices(pool, weights, k=8_000)
    return [(f"p{i}", request) for i, (_, request) in enumerate(drawn)]


def kind(request):
    """The classes of pods that a made mix draws more or less often."""
    if not request.devices:
        return "cpus alone"
    if request.device_milli < WHOLE:
        return "share"
    return {1: "one", 8: "eight"}.get(request.devices, "several")


def cells(ours, theirs):
    """One line of the table."""
    pair = [
        f"{each['allocated_percent'][at]:.2f}" for at in ("100", "130") for each in (ours, theirs)
    ]
    dropped = [f"{each['cpu_only_dropped']:.4g}" for each in (ours, theirs)]
    return (*pair, *dropped, f"{ours['moves_per_pod']:.4f}", f"{ours['pods_per_s']:.0f}")


def options_of(words):
    parser = argparse.ArgumentParser(prog="./dev bench packing", description=__doc__)
    parser.add_argument("--nodes", type=Path, help="CSV or CSV.gz: sn,cpu_milli,memory_mib,…")
    parser.add_argument("--pods", type=Path, help="CSV or CSV.gz: one trace instead of --variants")
    parser.add_argument("--seed", type=int, default=1, help="with --pods")
    parser.add_argument("--moves-per-pod", type=float, default=0.0, help="budget per arrival")
    parser.add_argument("--out", type=Path, help="with --pods: every decision, as CSV")
    parser.add_argument("--data", type=Path, default=DATA, help="the folder of the traces")
    parser.add_argument(
        "--variants", default=VARIANTS, help="a,b,a+b,mix1,…: + joins traces, mixN is made"
    )
    parser.add_argument("--seeds", default="1", help="1,2,3")
    return parser.parse_args(words)


def main(words):
    options = options_of(words)
    head = {"bench": "packing", "machine": figures.machine()}
    if not options.pods and not (options.data / "nodes.csv.gz").exists():
        print(f"skipped: no trace in {options.data}; name one with --data, or --nodes and --pods.")
        figures.last_line(**head, skipped=["no trace"], results={}, baseline={"fgd": {}})
        return 0
    if options.pods:
        nodes = read_nodes(options.nodes or options.data / "nodes.csv.gz")
        pods = read_pods(options.pods)
        ours, theirs = measure(nodes, pods, options.seed, options.moves_per_pod, options.out)
        line = (options.pods.name, options.seed, *cells(ours, theirs))
        columns = ("pods", "seed", "at 100 %", "FGD", "at 130 %", "FGD", "CPU-only dropped", "FGD")
        figures.table("Devices given away, percent", (*columns, "moves per pod", "pods/s"), [line])
    else:
        ours, theirs = several(options)
    figures.last_line(
        **head,
        seed=options.seed if options.pods else options.seeds,
        results=ours,
        baseline={"fgd": theirs},
    )
    return 0
