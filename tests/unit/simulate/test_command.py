"""The commands, as users type them."""

import json
import subprocess
import sys

import pytest
from gridlease_cli.__main__ import run

from .small import TWO_L4

TRACE = "submit_s,duration_s,name,chip,devices\n0,100,a,L4,2\n50,50,b,L4,1\n"


@pytest.fixture
def files(tmp_path):
    cluster, trace = tmp_path / "c.toml", tmp_path / "t.csv"
    cluster.write_text(TWO_L4)
    trace.write_text(TRACE)
    return [str(cluster), str(trace)]


def test_a_table(files, capsys):
    assert run(["simulate", *files]) == 0
    told = capsys.readouterr().out
    for words in ("t.csv (own) on cluster", "completion, p99", "L4-24GB held", "█"):
        assert words in told, told


@pytest.mark.parametrize("how", [["--json"], ["-o", "json"]])
def test_for_programs(files, capsys, how):
    assert run(["simulate", *files, "--baseline", "fifo", *how]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {"gridlease", "fifo"}
    assert found["gridlease"]["completion_ms"]["mean"] == 100_000


def test_before_and_after(files, capsys):
    assert run(["simulate", *files, "--compare", "--add", "1 x L4:2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["before"]["waiting_ms"]["most"] == 50_000
    assert found["after"]["waiting_ms"]["most"] == 0
    assert found["after"]["utilisation"]["L4-24GB"]["capacity_milli"] == 4_000


def test_files_are_written(files, tmp_path, capsys):
    plot, out = tmp_path / "p.svg", tmp_path / "jobs.csv"
    assert run(["simulate", *files, "--plot", str(plot), "--out", str(out)]) == 0
    assert plot.read_text().startswith("<svg")
    assert len(out.read_text().splitlines()) == 3


def test_the_example_can_be_played(files, tmp_path, capsys):
    assert run(["simulate", "--example"]) == 0
    path = tmp_path / "example.toml"
    path.write_text(capsys.readouterr().out)
    assert run(["simulate", str(path), files[1]]) == 0


@pytest.mark.parametrize(
    ("more", "code", "words"),
    [
        (["--compare"], 3, "--add"),
        (["--add", "more"], 3, "H100-80GB:8"),
        (["--baseline", "lifo"], 3, "fifo"),
        (["--share", "0"], 3, "--share"),
        (["--load", "0"], 3, "--load"),
        (["--purpose", "fun"], 3, "batch"),
        (["--until", "soon"], 3, "--until"),
        (["--reference-chip", "H1000"], 3, "--reference-chip"),
        (["--plot", "p.gif"], 3, ".svg"),
        (["--plot", "/nowhere/p.svg"], 5, "--plot"),
        (["--spot-prices", "/nowhere.csv"], 4, "--spot-prices"),
    ],
)
def test_mistakes_on_the_line(files, capsys, more, code, words):
    assert run(["simulate", *files, *more]) == code
    assert words in capsys.readouterr().err


def test_what_is_missing_is_named(files, capsys):
    assert run(["simulate"]) == 3
    assert "CLUSTER" in capsys.readouterr().err
    assert run(["simulate", files[0]]) == 3
    assert "TRACE" in capsys.readouterr().err
    assert run(["simulate", "none.toml", files[1]]) == 4
    assert "--example" in capsys.readouterr().err


def test_own_or_rent(capsys, tmp_path):
    assert run(["own-vs-rent"]) == 0
    told = capsys.readouterr().out
    assert "owning is cheaper above 71.9 % use" in told
    prices = tmp_path / "spot.csv"
    prices.write_text("chip,time_s,price_per_hour\nV100,0,0.90\n")
    line = ["own-vs-rent", "--spot-prices", str(prices), "--chip", "V100", "--json"]
    assert run(line) == 0
    found = json.loads(capsys.readouterr().out)
    assert [flip["against"] for flip in found["flips"]] == ["on demand", "spot, net of lost work"]


@pytest.mark.parametrize(
    ("more", "field"),
    [
        (["--price", "much"], "--price"), (["--years", "0"], "--years"),
        (["--pue", "0.5"], "--pue"), (["--operations", "-1"], "--operations"),
        (["--energy-price", "x"], "--energy-price"), (["--rent", "x"], "--rent"),
        (["--hosting", "x"], "--hosting"), (["--restart", "x"], "--restart"),
    ],
)  # fmt: skip
def test_mistakes_in_own_or_rent(capsys, more, field):
    assert run(["own-vs-rent", *more]) == 3
    assert field in capsys.readouterr().err


def test_spot_prices_need_a_chip_that_they_have(capsys, tmp_path):
    prices = tmp_path / "spot.csv"
    prices.write_text("chip,time_s,price_per_hour\nV100,0,0.90\n")
    assert run(["own-vs-rent", "--spot-prices", str(prices)]) == 3
    assert "--chip" in capsys.readouterr().err
    assert run(["own-vs-rent", "--spot-prices", str(prices), "--chip", "T4"]) == 3
    assert "v100" in capsys.readouterr().err


def test_other_commands_do_not_pay_for_it():
    code = "import sys, gridlease_cli.__main__; print('gridlease_simulate' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
