"""The simulator's page can be followed: its commands run, and print what it shows."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("docs/simulate.md", "docs/zh/simulate.md")


def transcripts(name: str) -> list[tuple[str, str]]:
    """(command, what the page says that it prints), in order."""
    text = (ROOT / name).read_text(encoding="utf-8")
    found = []
    for block in re.findall(r"^```console\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, told = part.partition("\n")
            found.append((command, told.rstrip("\n")))
    return found


def labels(text: str) -> list[str]:
    """What each line is about: the figures may move when the scheduler's decisions improve."""
    return [re.split(r"\s{2,}", line)[0].split("over")[0].strip() for line in text.splitlines()]


@pytest.mark.parametrize(
    "page", [PAGES[0], *(pytest.param(page, marks=pytest.mark.slow) for page in PAGES[1:])]
)
def test_the_commands_print_what_the_page_shows(page: str, tmp_path: Path) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    steps = transcripts(page)
    assert len(steps) == 4
    for command, told in steps:
        line = command.replace("gridlease", f"{sys.executable} -m gridlease_cli", 1)
        done = subprocess.run(
            ["bash", "-c", line],
            cwd=tmp_path,
            env={**os.environ, "NO_COLOR": "1"},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        printed = done.stdout.rstrip("\n")
        if "own-vs-rent" in command:
            assert printed == told
        else:
            assert labels(printed) == labels(told)


def test_both_pages_show_the_same_commands() -> None:
    one, two = (transcripts(page) for page in PAGES)
    assert one == two


def test_the_example_on_the_shelf_is_the_one_that_is_printed() -> None:
    from gridlease_simulate.clusterfile import EXAMPLE

    assert (ROOT / "examples/simulate/cluster.toml").read_text(encoding="utf-8") == EXAMPLE
