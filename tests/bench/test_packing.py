"""The packing bench on a tiny cluster: the promised shape, and a log that adds up."""

import csv
import json

from .test_benches import bench

NODES = """sn,cpu_milli,memory_mib,gpu,model
cpus,64000,262144,0,
one,16000,65536,2,T4
two,32000,131072,4,G2
"""
PODS = """name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec
a,4000,1024,1,810,
b,4000,1024,1,1000,T4
c,2000,1024,1,190,
d,8000,1024,2,1000,G2|T4
e,9000,1024,0,0,
"""
KEYS = {"allocated_percent", "cpu_only_dropped", "moves_per_pod", "pods_per_s"}


def test_figures_and_log(tmp_path):
    (tmp_path / "nodes.csv").write_text(NODES)
    (tmp_path / "pods.csv").write_text(PODS)
    done = bench(
        "packing", "--nodes", str(tmp_path / "nodes.csv"), "--pods", str(tmp_path / "pods.csv"),
        "--seed", "3", "--moves-per-pod", "0.5", "--out", str(tmp_path / "log.csv"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    results, rival = found["results"], found["baseline"]["fgd"]
    assert set(results) == set(rival) == KEYS
    assert set(results["allocated_percent"]) == set(rival["allocated_percent"]) == {"100", "130"}
    with (tmp_path / "log.csv").open() as source:
        log = list(csv.DictReader(source))
    assert {row["kind"] for row in log} <= {"arrive", "move", "drop"}
    held = {}
    for row in log:
        if row["kind"] != "drop":
            held[row["pod"]] = len(row["gpus"].split("|")) * int(row["gpu_milli"])
    assert abs(sum(held.values()) / 60 - results["allocated_percent"]["130"]) < 1e-9


def test_without_the_trace_it_says_so(tmp_path):
    done = bench("packing", "--data", str(tmp_path))
    assert done.returncode == 0
    assert "skipped: no trace" in done.stdout
    assert json.loads(done.stdout.splitlines()[-1])["skipped"] == ["no trace"]
