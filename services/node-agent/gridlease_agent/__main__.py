"""``python -m gridlease_agent``: lends this host, or emulated ones."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from gridlease_kernel.faults import Fault
from gridlease_mesh import logs
from gridlease_mesh.settings import read

from gridlease_agent import light_grpc
from gridlease_agent.alone import alone
from gridlease_agent.executor import account
from gridlease_agent.settings import Flags, Settings

EXPECTED_FAILURE = 2


def flags_of(argv: Sequence[str]) -> Flags:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="gridlease_agent", description="Lends this host (or emulated ones) to Gridlease."
    )
    parser.add_argument("--state", type=Path, required=True, help="folder of all that is kept")
    parser.add_argument("--join", default="", metavar="HOST:PORT", help="the gateway's door")
    parser.add_argument("--token", default="", help="one-time token; or GRIDLEASE_NODE_TOKEN")
    parser.add_argument("--site", default="", help="site that the token is expected to be of")
    parser.add_argument("--environments", type=Path, help="folder of prepared environments")
    parser.add_argument("--emulate", default="", metavar="KIND", help="be a node that is not there")
    parser.add_argument("--fleet", type=int, default=0, metavar="N", help="be N emulated nodes")
    parser.add_argument("--tokens-file", type=Path, help="one token a line, for --fleet")
    words = parser.parse_args(argv)
    environments = words.environments or words.state / "environments"
    return Flags(
        words.state.absolute(),
        environments.absolute(),
        words.join,
        words.token,
        words.site,
        words.emulate,
        words.fleet,
        words.tokens_file,
    )


def _fault_in(trouble: BaseException) -> Fault | None:
    """The expected failure that ended it, if every leaf of a group is one."""
    if isinstance(trouble, Fault):
        return trouble
    if isinstance(trouble, BaseExceptionGroup):
        found = [_fault_in(one) for one in trouble.exceptions]
        return found[0] if all(found) else None
    return None


def _core(flags: Flags, settings: Settings) -> None:
    # nats-py would load a client for web sockets, which no node speaks: a third of its memory.
    sys.modules.setdefault("aiohttp", None)  # type: ignore[arg-type] # as the import system has it
    if settings.executor is not None:
        light_grpc.leave_out_transport()
    from gridlease_agent import core  # noqa: PLC0415 - the executor never needs it

    core.run(flags, settings)


def _split(flags: Flags, settings: Settings, argv: Sequence[str]) -> int | None:
    """Run as executor and core, where this is root on a real host; None where it is not."""
    emulated = bool(flags.fleet or flags.emulate)
    if emulated or os.geteuid() != 0 or settings.agent_user == account.ROOT:
        return None
    from gridlease_agent import split  # noqa: PLC0415 - the core never needs it

    return split.run(flags, settings, argv)


def main(argv: Sequence[str]) -> int:
    """The exit code: 0 after a clean stop, 2 after an expected failure."""
    flags = flags_of(argv)
    try:
        settings = read(Settings, os.environ)
        logs.set_up("agent", level=settings.log_level)
        if settings.executor is not None:
            with alone(flags.state, "core.lock"):
                _core(flags, settings)
            return 0
        with alone(flags.state):
            code = _split(flags, settings, argv)
            if code is None:
                _core(flags, settings)
            return code or 0
    except (Fault, BaseExceptionGroup) as trouble:
        fault = _fault_in(trouble)
        if fault is None:
            raise
        sys.stderr.write(f"gridlease_agent: {fault}\n")
        return EXPECTED_FAILURE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
