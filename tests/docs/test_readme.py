"""A newcomer can follow the README literally: its commands are run as they stand."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from gridlease_sdk import jobfile
from gridlease_testkit.ports import free_port

ROOT = Path(__file__).resolve().parents[2]


def blocks(name: str, language: str) -> list[str]:
    text = (ROOT / name).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def commands(name: str) -> list[str]:
    lines = "".join(blocks(name, "console")).splitlines()
    return [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]


@pytest.fixture
def place() -> Iterator[dict[str, str]]:
    """Where the commands keep their state, so that they meet no platform that runs already."""
    folder = Path(tempfile.mkdtemp(prefix="gl-readme-"))
    state = folder / "state"
    yield {
        **os.environ,
        "GRIDLEASE_STATE": str(state),
        "GRIDLEASE_PORT": str(free_port()),
        "GRIDLEASE_CLIENT_FILE": str(state / "client.json"),
        "NO_COLOR": "1",
    }
    subprocess.run(
        [str(ROOT / "dev"), "down", "--state", str(state)],
        cwd=ROOT,
        check=False,
        capture_output=True,
        timeout=60,
    )
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.slow  # twenty seconds; by default ./dev demo alone, in tests/e2e/test_demo.py
def test_the_commands_of_the_readme_run(place: dict[str, str]) -> None:
    steps = commands("README.md")
    assert len(steps) >= 10
    script = "set -eu\n" + "".join(f"echo '+ step {n}'\n{line}\n" for n, line in enumerate(steps))
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=ROOT,
        env=place,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    words = done.stdout + done.stderr
    assert done.returncode == 0, words
    for told in (
        "emulated",  # the fleet is marked wherever it shows
        "done: held-out accuracy",
        "SUCCEEDED",
        "NO_SUCH_CHIP",
        "job.succeeded",
        "stopped",
    ):
        assert told in words, (told, words)


def test_both_readmes_show_the_same_commands() -> None:
    assert commands("README.md") == commands("README.zh-CN.md")


def test_the_job_file_in_the_readme_is_the_example() -> None:
    (shown,) = blocks("README.md", "yaml")
    example = ROOT / "examples" / "train-digits"
    assert jobfile.parse(shown.encode(), example) == jobfile.load(example / "job.yaml")


def test_the_first_lines_are_the_two_commands() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text.index("./dev demo") < text.index("./dev test") < text.index("## Use it")
