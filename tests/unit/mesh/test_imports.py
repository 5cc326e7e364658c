"""What the agent imports stays small."""

import subprocess
import sys

HEAVY = [
    "asyncpg",
    "pydantic",
    "numpy",
    "sqlalchemy",
    "protovalidate",
    "opentelemetry",
    "alembic",
    "starlette",
]


def test_the_agents_side_loads_nothing_heavy():
    code = (
        "import sys, gridlease_mesh.bus, gridlease_mesh.events, gridlease_mesh.status, "
        "gridlease_mesh.interceptors, gridlease_mesh.settings, gridlease_mesh.logs, "
        "gridlease_mesh.credentials, gridlease_mesh.embedded, gridlease_mesh.outbox\n"
        f"print([m for m in {HEAVY!r} if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
