"""Tables, values for programs, rows of blocks and charts say what the run was."""

import json
import xml.etree.ElementTree as ET

import pytest
from gridlease_simulate import chart, report
from gridlease_simulate.outcome import spread
from gridlease_simulate.rules import Rules

from .small import TWO_L4, play

TRACE = "submit_s,duration_s,name,chip,devices\n0,100,a,L4,2\n50,50,b,L4,1\n60,1,c,H100,1\n"


@pytest.fixture
def run():
    return play(TWO_L4, TRACE)


def test_percentiles_are_nearest_ranks():
    it = spread(list(range(1, 101)))
    assert (it.mean_ms, it.p50_ms, it.p99_ms, it.most_ms) == (50, 50, 99, 100)
    assert spread([7]).p99_ms == 7
    assert spread([]).mean_ms == 0


def test_one_table_for_one_run(run):
    main, left = report.sections({"gridlease": run})
    rows = dict(main.rows)
    assert rows["jobs submitted"] == "3"
    assert rows["  rejected: would never fit"] == "1"
    assert rows["completion, mean"] == "1m40s"
    assert rows["L4-24GB held"] == "83.3 % of 2"
    assert rows["charged to tenants"] == "0.08 USD"
    assert "evictions" not in rows
    assert left.rows[0][:3] == ("rejected", "1", "NO_SUCH_CHIP")


def test_runs_stand_side_by_side(run):
    fifo = play(TWO_L4, TRACE, "fifo", Rules(until_ms=60_000))
    main = report.sections({"before": run, "after": fifo})[0]
    assert main.heads == ("", "before", "after", "change")
    rows = {row[0]: row[1:] for row in main.rows}
    assert rows["  finished"] == ("2", "0", "")
    assert rows["  running at the end"] == ("-", "1", "")
    assert rows["completion, mean"][2] == "-100.0 %"


def test_values_for_programs_are_whole_numbers(run):
    found = json.loads(json.dumps(report.figures(run)))
    assert found["jobs"] == {
        "submitted": 3, "not_yet_submitted": 0, "finished": 2, "running": 0, "waiting": 0,
        "rejected": 1,
    }  # fmt: skip
    assert found["utilisation"]["L4-24GB"]["busy_milli_ms"] == 250_000_000
    assert found["cost_nano"] == 1_200_000_000 * 200 // 3_600 + 1_200_000_000 * 50 // 3_600
    assert found["not_finished"][0]["reason"] == "NO_SUCH_CHIP"
    assert isinstance(found["energy"]["facility_uj"], int)


def test_every_job_is_a_line(run):
    lines = report.jobs_csv(run).splitlines()
    assert len(lines) == 4
    assert lines[0].startswith("job,state,tier,submit_ms,started_ms")
    assert lines[1].startswith("a,finished,ON_DEMAND,0,0,100000,0,0,200000000,")
    assert lines[3].endswith(",NO_SUCH_CHIP")


def test_means_keep_the_area():
    steps = [(0, 3), (7, 0), (9, 10), (31, 0)]
    for bins in (1, 3, 7, 60):
        area = sum(report.means(steps, 31, bins)) * 31 / bins
        assert area == pytest.approx(3 * 7 + 10 * 22)
    assert report.means([(0, 1)], 0, 3) == [0.0, 0.0, 0.0]


def test_a_row_of_blocks(run):
    rows = {what: blocks for what, blocks, _ in report.sparks(run, 15)}
    assert rows["L4-24GB held"] == "█" * 10 + "▅" * 5
    assert rows["jobs waiting"] == "▁" * 5 + "█" * 5 + "▁" * 5


def test_a_chart_is_well_formed_and_stays_in_its_frame(run):
    text = chart.svg(report.panels({"a<b": run, "c": run}), report.span_days({"a": run}), "days")
    root = ET.fromstring(text)
    wide, high = float(root.get("width")), float(root.get("height"))
    lines = [each for each in root.iter() if each.tag.endswith("polyline")]
    assert len(lines) == 4
    for line in lines:
        for pair in line.get("points").split():
            x, y = map(float, pair.split(","))
            assert 0 <= x <= wide
            assert 0 <= y <= high
    words = [each.text for each in root.iter() if each.tag.endswith("text")]
    assert "L4-24GB, a<b" in words
    assert "100" in words


@pytest.mark.parametrize("values", [(), (0.0,), (0.0, 0.0), (1e9, 1.0), (0.001,)])
def test_a_chart_of_odd_values(values):
    panel = chart.Panel("p", (chart.Line("x", values),))
    ET.fromstring(chart.svg([panel], 0.0, "days"))


@pytest.mark.parametrize(
    ("ms", "words"),
    [(0, "0s"), (1_500, "1.5s"), (60_000, "1m"), (3_600_000, "1h"), (90_061_000, "1d1h"),
     (86_460_000, "1d")],
)  # fmt: skip
def test_spans(ms, words):
    assert report.span(ms) == words
