"""The agent stays light: what it must never import."""

from __future__ import annotations

import subprocess
import sys

_LOOK = """
import sys
import gridlease_agent.core
heavy = {"asyncpg", "numpy", "pydantic", "protovalidate", "sqlalchemy", "opentelemetry", "cel"}
print(sorted(heavy & {name.split(".")[0] for name in sys.modules}))
"""


def test_a_loaded_agent_holds_none_of_the_heavy_libraries() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _LOOK], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
