"""The packing bench on a small cluster: the promised shape, and a log that anyone can recount."""

import csv
import gzip
import json
import random

import pytest

from .packing import measure, read_nodes, read_pods, stream
from .test_benches import bench

NODES = """sn,cpu_milli,memory_mib,gpu,model
cpus,64000,262144,0,
one,16000,65536,2,T4
two,32000,131072,4,G2
three,32000,131072,4,G2
"""
PODS = """name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec
a,4000,1024,1,810,
b,4000,1024,1,1000,T4
c,2000,1024,1,190,
d,8000,1024,2,1000,G2|T4
e,9000,1024,0,0,
f,2000,1024,1,470,
g,9000,1024,4,1000,
"""
KEYS = {"allocated_percent", "cpu_only_dropped", "moves_per_pod", "pods_per_s"}
BUDGET = 0.3


def files(tmp_path, nodes=NODES, pods=PODS, packed=False):
    found = []
    for name, content in (("nodes.csv", nodes), ("pods.csv", pods)):
        path = tmp_path / (name + ".gz" if packed else name)
        path.write_bytes(gzip.compress(content.encode()) if packed else content.encode())
        found.append(path)
    return found


def run(tmp_path, nodes, pods, *more):
    return bench("packing", "--nodes", str(nodes), "--pods", str(pods), *more)


@pytest.mark.parametrize("packed", [False, True])
def test_the_last_line_has_the_promised_keys_and_no_others(tmp_path, packed):
    done = run(tmp_path, *files(tmp_path, packed=packed), "--seed", "3")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    results, rival = found["results"], found["baseline"]["fgd"]
    assert set(results) == set(rival) == KEYS
    assert set(results["allocated_percent"]) == set(rival["allocated_percent"]) == {"100", "130"}
    assert results["moves_per_pod"] == 0.0


@pytest.mark.parametrize("seed", range(8))
def test_the_log_recounts_to_the_figures(tmp_path, seed):
    paths = files(tmp_path)
    nodes, pods = read_nodes(paths[0]), read_pods(paths[1])
    ours, _ = measure(nodes, pods, seed, BUDGET, tmp_path / "log.csv")
    found = recounted(nodes, pods, seed, tmp_path / "log.csv")
    assert ours["allocated_percent"] == pytest.approx(found["allocated_percent"])
    assert ours["cpu_only_dropped"] == found["cpu_only_dropped"]
    assert ours["moves_per_pod"] == pytest.approx(found["moves_per_pod"])


def test_moves_are_seen_in_the_log(tmp_path):
    kinds = set()
    for seed in range(20):
        paths = files(tmp_path)
        measure(read_nodes(paths[0]), read_pods(paths[1]), seed, BUDGET, tmp_path / "log.csv")
        with (tmp_path / "log.csv").open() as source:
            kinds |= {row["kind"] for row in csv.DictReader(source)}
    assert kinds == {"arrive", "move", "drop"}


def recounted(nodes, pods, seed, path):
    """The figures, from the log and the input alone; every step is checked against the capacity."""
    capacity = sum(len(room.free) for room in nodes.values()) * 1_000
    asked_for = dict(stream(pods, seed, capacity))
    order, places = list(asked_for), {}
    asked = arrived = moves = dropped = 0
    outcome = {"allocated_percent": {}}
    with path.open() as source:
        log = list(csv.DictReader(source))
    assert [int(row["order"]) for row in log] == list(range(len(log)))
    for row in log:
        request = asked_for[row["pod"]]
        if row["kind"] == "move":
            moves += 1
            assert places[row["pod"]][0] != row["node"]
        else:
            assert row["pod"] == order[arrived], "arrival order is kept"
            arrived, asked = arrived + 1, asked + request.asked_milli
        if row["kind"] == "drop":
            dropped += not request.devices
        else:
            devices = [int(each) for each in row["gpus"].split("|") if each]
            assert int(row["gpu_milli"]) == request.device_milli
            assert not request.chips or nodes[row["node"]].chip in request.chips
            places[row["pod"]] = (row["node"], devices)
            check_node(nodes, places, asked_for, row["node"], request, devices)
        # The moves for a request are logged before its arrival: they count with it.
        assert moves <= BUDGET * (arrived + (row["kind"] == "move"))
        share = sum(asked_for[pod].asked_milli for pod in places) / capacity * 100
        if asked >= capacity and "100" not in outcome["allocated_percent"]:
            outcome["allocated_percent"]["100"] = share
            outcome["cpu_only_dropped"], outcome["moves_per_pod"] = dropped, moves / arrived
    assert arrived == len(order)
    outcome["allocated_percent"]["130"] = share
    return outcome


def check_node(nodes, places, asked_for, node, request, devices):
    """Nothing on the node is given away twice."""
    assert len(set(devices)) == len(devices) == request.devices
    room = nodes[node]
    cpu, memory, free = room.cpu_milli, room.memory_mib, list(room.free)
    for pod, (where, taken) in places.items():
        if where == node:
            each = asked_for[pod]
            cpu, memory = cpu - each.cpu_milli, memory - each.memory_mib
            for device in taken:
                free[device] -= each.device_milli
    assert min(cpu, memory, *free) >= 0


def test_without_moves_what_fits_is_never_dropped(tmp_path):
    chance = random.Random(5)
    lines = [
        f"p{i},{chance.choice((1000, 4000, 9000))},1024,{gpus},{milli},"
        for i in range(40)
        for gpus, milli in [chance.choice([(0, 0), (1, 300), (1, 650), (1, 1000), (2, 1000)])]
    ]
    paths = files(tmp_path, pods="\n".join([PODS.splitlines()[0], *lines]))
    nodes, pods = read_nodes(paths[0]), read_pods(paths[1])
    measure(nodes, pods, 1, 0.0, tmp_path / "log.csv")
    with (tmp_path / "log.csv").open() as source:
        log = list(csv.DictReader(source))
    capacity = sum(len(room.free) for room in nodes.values()) * 1_000
    asked_for = dict(stream(pods, 1, capacity))
    left = {
        name: [room.cpu_milli, room.memory_mib, list(room.free)] for name, room in nodes.items()
    }
    for row in log:
        each = asked_for[row["pod"]]
        if row["kind"] == "drop":
            assert not any(
                cpu >= each.cpu_milli
                and memory >= each.memory_mib
                and sum(milli >= each.device_milli for milli in free) >= each.devices
                for cpu, memory, free in left.values()
            )
            continue
        there = left[row["node"]]
        there[0] -= each.cpu_milli
        there[1] -= each.memory_mib
        for device in row["gpus"].split("|") if row["gpus"] else ():
            there[2][int(device)] -= each.device_milli


def test_a_missing_column_is_named(tmp_path):
    nodes, pods = files(tmp_path, pods=PODS.replace("num_gpu", "gpus"))
    done = run(tmp_path, nodes, pods)
    assert done.returncode != 0
    assert "pods.csv has no column num_gpu; it has name, cpu_milli," in done.stderr
    assert "Traceback" not in done.stderr
    done = run(tmp_path, tmp_path / "none.csv", pods)
    assert done.returncode != 0
    assert "cannot read" in done.stderr


def test_without_the_trace_it_says_so(tmp_path):
    done = bench("packing", "--data", str(tmp_path))
    assert done.returncode == 0
    assert "skipped: no trace" in done.stdout
    assert json.loads(done.stdout.splitlines()[-1])["skipped"] == ["no trace"]
