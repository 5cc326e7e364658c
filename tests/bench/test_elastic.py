"""The elastic bench: an adapter on a pipe, a table elsewhere, profiles that give known hours."""

import json
import subprocess
import sys

import pytest

from tests.bench.children import ROOT
from tests.bench.elastic import MEASURES, Adapter
from tests.bench.elastic_rivals import Sia, fifo
from tests.bench.elastic_world import (
    DATA,
    NODES,
    PROFILE_NAMES,
    RESTART_S,
    Job,
    Profiles,
    World,
    shapes,
    workload,
)

needs_profiles = pytest.mark.skipif(
    not (DATA / "workloads.csv.gz").exists(), reason="the profiles of Sia are not here"
)


def elastic(*words, **how):
    return subprocess.run(
        [sys.executable, "-m", "tests.bench", "elastic", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        **how,
    )


def job(name, **more):
    return {
        "id": name, "app": "net", "age": 60.0, "done": 0.0, "alloc": None, "restart_left": 0.0,
        "restart_s": 50.0, "restarts": 0, "gpu_s": 0.0, "tuned_gpus": 4, "min_gpus": 1,
        "max_gpus": 24, "seen_gpus": 0, "goodput": {"t4": [[1, 1, 1.0]], "a100": [[1, 1, 4.0]]},
    } | more  # fmt: skip


def rounds(*jobs, t=0.0):
    return json.dumps({"t": t, "round_s": 60.0, "nodes": list(NODES), "jobs": jobs}) + "\n"


def test_on_a_pipe_each_line_is_answered_by_one_and_nothing_else():
    held = {"kind": "a100", "nodes": {"6": 1}}
    lines = [
        rounds(),
        rounds(job("j1"), job("j2")),
        rounds(job("j1", alloc=held, restart_left=40.0), job("j2"), t=60.0),
    ]
    done = elastic(input="".join(lines))
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == 3
    assert answers[0] == {"alloc": {}}
    for answer in answers[1:]:
        assert set(answer) == {"alloc"}
        assert set(answer["alloc"]) == {"j1", "j2"}
        for each in answer["alloc"].values():
            kinds = {str(node["i"]): node["kind"] for node in NODES}
            assert {kinds[node] for node in each["nodes"]} == {each["kind"]}


def test_end_of_input_at_once_is_fine():
    done = elastic(input="")
    assert (done.returncode, done.stdout) == (0, "")


def test_without_the_profiles_it_says_so(tmp_path):
    done = elastic("--data", str(tmp_path), stdin=subprocess.DEVNULL)
    assert done.returncode == 0
    assert "skipped: no profiles" in done.stdout
    assert json.loads(done.stdout.splitlines()[-1])["skipped"] == ["no profiles"]


@needs_profiles
@pytest.mark.slow  # its parts are tried one by one below
def test_figures():
    done = elastic("--quick", stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["bench"] == "elastic"
    assert set(found["results"]["saturn-1"]) > set(MEASURES) | {"decision_p99_ms"}
    assert set(found["baseline"]) == {"fifo", "sia_like"}
    assert set(found["ratio"]) == set(MEASURES) | {"avg_s_vs_fifo"}


@needs_profiles
def test_hours_on_one_gpu_are_those_of_the_profiles():
    profiles = Profiles(DATA)
    known = {
        "imagenet": (177, 40, 89), "bert": (4.5, 0.43, 2.2), "cifar10": (1.9, 0.35, 0.9),
        "deepspeech2": (5.5, 2.9, 3.3), "yolov3": (10.3, 4.0, 20.4),
    }  # fmt: skip
    for app, hours in known.items():
        bounds = profiles.boundaries[app]
        for kind, expected in zip(PROFILE_NAMES, hours, strict=True):
            rates = profiles.rates(app, kind, (1,))
            spans = [
                (end - begin) / rate
                for begin, end, rate in zip([0.0, *bounds], bounds, rates, strict=False)
            ]
            assert sum(spans) / 3600 == pytest.approx(expected, rel=0.05), (app, kind)


@needs_profiles
def test_the_account_of_one_job():
    profiles = Profiles(DATA)
    one = Job("j", "cifar10", 30.0, 1, 128)
    a100 = {"j": {"kind": "a100", "nodes": {"6": 1}}}
    found = World(profiles, [one]).run(lambda snapshot: a100)
    alone_s = found["avg_s"]
    assert found["avg_s"] == found["p99_s"] == found["makespan_s"]
    assert found["gpu_h"] == pytest.approx((alone_s - 30.0) / 3600), "held from the next round on"
    assert found["restarts"] == 0
    turns = [a100, {"j": {"kind": "a100", "nodes": {"7": 1}}}]
    moved = World(profiles, [Job("j", "cifar10", 30.0, 1, 128)]).run(
        lambda snapshot: turns[snapshot["t"] >= 600]
    )
    assert moved["restarts"] == 1
    assert moved["avg_s"] == pytest.approx(alone_s + RESTART_S["cifar10"])


@needs_profiles
@pytest.mark.parametrize("policy", ["ours", "sia", "fifo"])
def test_every_policy_brings_all_jobs_to_an_end(policy):
    adapter = Adapter()
    chosen = {
        "ours": lambda snapshot: json.loads(adapter.answer(json.dumps(snapshot)))["alloc"],
        "sia": Sia(),
        "fifo": fifo,
    }[policy]
    jobs = workload(DATA, "philly", 1, 12)
    found = World(Profiles(DATA), jobs, noise=0.2, fixed=policy == "fifo").run(chosen)
    assert all(each.end_s > each.submit_s for each in jobs)
    assert found["gpu_h"] > 0


def test_shapes_of_counts():
    assert shapes(1, 4, 6) == [(1, (1,))]
    assert shapes(2, 4, 6) == [(2, (1, 1)), (1, (2,))]
    assert shapes(6, 4, 6) == [(3, (2, 2, 2)), (2, (2, 4))]
    assert shapes(24, 4, 6) == [(6, (4,) * 6)]
