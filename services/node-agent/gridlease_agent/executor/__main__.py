"""``python -m gridlease_agent.executor``: the root part alone, where systemd starts both parts."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from gridlease_kernel.faults import Fault, Precondition
from gridlease_mesh import logs
from gridlease_mesh.settings import read

from gridlease_agent import split
from gridlease_agent.alone import alone
from gridlease_agent.executor import account
from gridlease_agent.settings import Settings

EXPECTED_FAILURE = 2


def main(argv: Sequence[str]) -> int:
    """The exit code: 2 after an expected failure; it does not end otherwise."""
    parser = argparse.ArgumentParser(
        prog="gridlease_agent.executor", description="The root part of the node agent."
    )
    parser.add_argument("--state", type=Path, required=True, help="the node's state folder")
    parser.add_argument("--environments", type=Path, help="folder of prepared environments")
    words = parser.parse_args(argv)
    state = words.state.absolute()
    environments = (words.environments or state / "environments").absolute()
    try:
        settings = read(Settings, os.environ)
        logs.set_up("executor", level=settings.log_level)
        if os.geteuid() != 0:
            raise Precondition(
                "The executor must be root.",
                reason="NOT_ROOT",
                remedy="Start it by its systemd unit, or start the agent alone.",
            )
        who = account.account(settings.agent_user)
        with alone(state, "executor.lock"):
            environments.mkdir(parents=True, exist_ok=True, mode=0o755)
            account.share_out(state, *who)
            split.serve(state, environments, settings, who)
    except Fault as fault:
        sys.stderr.write(f"gridlease_agent.executor: {fault}\n")
        return EXPECTED_FAILURE
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
