"""The bench of rounds: lines through a pipe, and a replay whose clock can be checked by hand."""

import json
import subprocess
import sys
from io import StringIO

import pytest

from .children import ROOT
from .round_replay import Job, OverCapacityError, read, replay
from .round_rivals import Fifo, MaxMin
from .rounds import DATA, Product, answer

KEYS = {"avg_jct_h", "p99_jct_h", "makespan_h", "switches_per_job", "ftf_p99"}
SPEEDS = {"v100": 4.0, "p100": 2.0, "k80": 1.0}


def piped(lines, *words):
    return subprocess.run(
        [sys.executable, "-m", "tests.bench", "rounds", *words],
        cwd=ROOT,
        input="".join(line + "\n" for line in lines),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def job(name="a", **changed):
    given = {"id": name, "scale": 1, "left": 3600, "age": 0, "got": 0, "thr": {"v100": 4, "k80": 1}}
    return {**given, **changed}


def round_(*jobs, t=0, **changed):
    return json.dumps({"t": t, "free": {"v100": 1, "k80": 1}, "jobs": list(jobs), **changed})


def test_a_line_in_a_line_out_and_nothing_else():
    short = job("a", left=400, thr={"v100": 1.1, "k80": 1.0})
    long_ = job(7, left=40_000)
    done = piped([round_(short, long_), "", round_(long_, t=360), round_(t=720)])
    assert done.returncode == 0, done.stderr
    assert [json.loads(line) for line in done.stdout.splitlines()] == [
        {"run": {"a": "k80", "7": "v100"}},
        {"run": {"7": "v100"}},
        {"run": {}},
    ]


def test_the_end_of_input_is_no_error():
    done = piped([])
    assert (done.returncode, done.stdout) == (0, "")


def test_unknown_does_not_look_at_what_is_left():
    rounds = [
        [job(str(at), left=left, age=number * 360.0) for at, left in enumerate(lefts)]
        for number, lefts in enumerate(([1, 9e9, 50], [9e9, 1, 50, 7]))
    ]
    plain = [round_(*jobs, t=360 * at) for at, jobs in enumerate(rounds)]
    for each in rounds:
        for given in each:
            given["left"] = "?"
    bare = [round_(*jobs, t=360 * at) for at, jobs in enumerate(rounds)]
    assert piped(bare, "--unknown").stdout == piped(plain, "--unknown").stdout
    assert piped(bare).returncode == 2


@pytest.mark.parametrize(
    ("line", "field"),
    [
        ("{", "not JSON"),
        ("[]", "a round must be an object"),
        (round_(t="0"), "t: a number"),
        (round_(free=[]), "free: an object"),
        (round_(free={"v100": -1}), "free.v100: a finite number of at least 0"),
        (round_(free={"v100": 1.5}), "free.v100: a whole number"),
        (round_(jobs={}), "jobs: a list"),
        (round_(3), "jobs[0]: an object"),
        (round_(job(), job()), "jobs[1].id: a is there twice"),
        (round_(job(None)), "jobs[0].id: a string"),
        (round_(job(scale=0)), "jobs[0].scale: a finite number of at least 1"),
        (round_(job(scale=True)), "jobs[0].scale: a number"),
        (round_(job(left=None)), "jobs[0].left: a number"),
        (round_(job(age=-1)), "jobs[0].age: a finite"),
        (round_(job(got=float("nan"))), "jobs[0].got: a finite"),
        (round_(job(thr={"k80": 10**400})), "jobs[0].thr.k80: a finite"),
        (round_(job(thr=None)), "jobs[0].thr: an object"),
    ],
)
def test_a_bad_line_is_refused_by_its_field(line, field, capsys):
    answers = StringIO()
    assert answer([round_(job()), line, round_(job())], answers, unknown=False) == 2
    assert f"line 2: {field}" in capsys.readouterr().err
    assert len(answers.getvalue().splitlines()) == 1


def test_without_the_jobs_it_says_so(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench", "rounds", "--data", str(tmp_path)],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["skipped"] == ["no jobs"]


def play(policy, *jobs):
    free = {"v100": 2, "p100": 2, "k80": 2}
    return replay([Job(str(at), *each) for at, each in enumerate(jobs)], policy, free)


def always(*answers):
    """A policy that gives these answers, and the last of them for ever."""
    answers = list(answers)
    return lambda _: answers.pop(0) if len(answers) > 1 else answers[0]


def test_a_start_costs_half_a_minute_and_the_end_is_interpolated():
    done = play(always({"0": "k80"}), (10.0, 500.0, 2, SPEEDS))
    (only,) = done.jobs
    assert only.end_s == 360 + 30 + 500
    assert only.got == 2 * 530
    assert only.switches == 0


def test_a_move_and_a_stop_are_switches_and_a_return_costs_again():
    answers = always({"0": "k80"}, {"0": "v100"}, {}, {"0": "v100"})
    (only,) = play(answers, (0.0, 330.0 + 1_320.0 + 400.0, 1, SPEEDS)).jobs
    assert only.switches == 2
    assert only.end_s == 3 * 360 + 30 + 100


@pytest.mark.parametrize("answer", [{"0": "tpu"}, {"9": "k80"}, {"0": "k80", "1": "k80"}])
def test_what_cannot_be_carried_out_fails_the_run(answer):
    with pytest.raises(OverCapacityError):
        play(always(answer), (0.0, 1e4, 2, SPEEDS), (0.0, 1e4, 1, SPEEDS))


def test_fairness_compares_with_an_equal_share_of_an_average_device():
    found = play(always({"0": "v100"}), (0.0, 4 * 8 * 3_600.0, 1, SPEEDS)).figures()
    alone_h = 4 * 8 / (7 / 3)
    assert found["ftf_p99"] == pytest.approx((8 + 30 / 3_600) / alone_h)
    assert found["makespan_h"] == found["avg_jct_h"] == found["p99_jct_h"]


@pytest.mark.parametrize("policy", [Fifo, MaxMin, lambda: Product(False), lambda: Product(True)])
def test_every_policy_ends_every_job(policy):
    jobs = [(at * 200.0, 3_000.0 + 900 * at, 1 + at % 2, SPEEDS) for at in range(9)]
    done = play(policy(), *jobs)
    assert set(done.figures()) == KEYS
    assert all(each.end_s is not None for each in done.jobs)


@pytest.mark.skipif(not DATA.exists(), reason="the jobs' data folder is not there")
@pytest.mark.parametrize("unknown", [False, True])
def test_the_promised_times(unknown):
    found = replay(read(DATA), Product(unknown)).figures()
    assert found["avg_jct_h"] <= 15.1
    assert found["p99_jct_h"] <= 163
    assert found["switches_per_job"] <= 3
    assert found["ftf_p99"] <= 1.1
