"""The runtimes of the sandbox tests, and a world with something to steal in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.escape.world import PYTHON
from tests.integration.sandbox.conftest import bwrap_runtime, crun_runtime

__all__ = ["bwrap_runtime", "crun_runtime"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The attacker is a script for the host's own Python."""
    for item in items:
        if Path(__file__).parent in item.path.parents and not Path(PYTHON).exists():
            item.add_marker(pytest.mark.skip(reason="needs the host's python3"))
