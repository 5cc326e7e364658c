"""Platforms of real processes, one for each module of tests."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.link import Link
from tests.e2e.world import QUICK, World


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="gl-e2e-"))
    yield path
    if "GRIDLEASE_KEEP_STATE" not in os.environ:
        shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="module")
def world(folder: Path) -> Iterator[World]:
    """A platform with the product's own timing."""
    one = World(folder / "state")
    one.start()
    yield one
    one.stop()


@pytest.fixture(scope="module")
def cuttable(folder: Path) -> Iterator[tuple[World, Link]]:
    """A platform with short grants, whose node reaches the broker over a link."""
    state = folder / "state"

    def broker() -> tuple[str, int]:
        return "127.0.0.1", int(json.loads((state / "nats" / "ports.json").read_text())["client"])

    link = Link(broker)
    one = World(state, "--node-nats", link.url, timing=QUICK)
    one.start()
    yield one, link
    link.heal()
    one.stop()
    link.close()
