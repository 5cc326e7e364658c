"""The page's training loop and the elastic example save at the warning and go on from there."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from gridlease_sdk import jobfile
from gridlease_testkit.waiting import eventually_sync

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "jobs.md").read_text(encoding="utf-8")
EXAMPLE = ROOT / "examples" / "elastic-train"


@pytest.fixture(params=["page", "example"])
def program(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == "example":
        return EXAMPLE / "train.py"
    [text] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    path = tmp_path / "page.py"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def reports(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "reports"
    folder.mkdir()
    return folder


def run(program: Path, reports: Path, more: Mapping[str, str]) -> subprocess.Popen[str]:
    env = {**os.environ, "GRIDLEASE_REPORT_DIR": str(reports), **more}
    return subprocess.Popen(
        [sys.executable, str(program)], env=env, text=True, stdout=subprocess.PIPE
    )


def told(reports: Path, name: str) -> dict[str, object] | None:
    path = reports / name
    return dict(json.loads(path.read_text())) if path.exists() else None


def test_it_reports_saves_and_goes_on(program: Path, reports: Path) -> None:
    with run(program, reports, {}) as first:
        eventually_sync(lambda: told(reports, "progress.json"), 30, "it tells how it goes")
        first.send_signal(signal.SIGTERM)
        assert first.wait(20) == 0
    saved = told(reports, "checkpoint.json")
    assert saved is not None
    at = int(str(saved["id"]).partition(":")[0])
    assert 0 < at < 1000

    (reports / "progress.json").unlink()
    with run(program, reports, {"GRIDLEASE_CHECKPOINT": str(saved["id"])}) as second:
        went_on = eventually_sync(lambda: told(reports, "progress.json"), 30)
        second.kill()
    assert went_on is not None
    assert int(str(went_on["steps"])) > at


def test_the_example_ends_with_the_line_that_it_fits(reports: Path) -> None:
    more = {"GRIDLEASE_CHECKPOINT": "1400:1.98:0.48"}
    with run(EXAMPLE / "train.py", reports, more) as done:
        out, _ = done.communicate(timeout=60)
    assert out.splitlines()[0] == "task 0 of 1 begins at step 1400"
    [slope, offset] = [float(x) for x in re.findall(r"(\d\.\d\d)", out)]
    assert (abs(slope - 2) < 0.1, abs(offset - 0.5) < 0.1) == (True, True)


def test_the_example_is_an_elastic_job() -> None:
    spec = jobfile.load(EXAMPLE / "job.yaml").spec
    assert (spec.nodes.min, spec.nodes.max) == (1, 2)
    assert (spec.batch_size.min, spec.batch_size.max) == (128, 1024)
