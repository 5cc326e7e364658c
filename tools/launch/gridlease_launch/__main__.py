"""``python -m gridlease_launch up | down | demo``: what ./dev calls."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from pathlib import Path

from gridlease_kernel.faults import Fault

from . import demo, detached
from .folder import StateFolder
from .options import DEFAULT_PORT, Options
from .port import free_port
from .supervisor import Platform

_ROOT = Path(__file__).resolve().parents[3]


def say(text: str) -> None:
    """One line of progress, at once."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="./dev", allow_abbrev=False)
    verbs = parser.add_subparsers(dest="verb", required=True)
    up = verbs.add_parser("up", help="run the platform for use")
    down = verbs.add_parser("down", help="stop it cleanly")
    show = verbs.add_parser("demo", help="run the main job end to end and stop")
    named = os.environ.get("GRIDLEASE_STATE")
    for verb, state in ((up, "main"), (down, "main"), (show, "demo")):
        default = Path(named) if named else _ROOT / ".state" / state
        verb.add_argument("--state", type=Path, default=default, help="state folder (%(default)s)")
    for verb in (up, show):
        verb.add_argument("--nats", help="URL of a NATS server to use instead of our own")
        verb.add_argument("--nats-creds", type=Path, help="credentials file for it")
        verb.add_argument("--postgres", help="DSN of a PostgreSQL (15 or newer) of yours")
        verb.add_argument("--fleet", type=int, default=0, help="add N emulated nodes")
    port = int(os.environ.get("GRIDLEASE_PORT", DEFAULT_PORT))
    up.add_argument("--port", type=int, default=port, help="gateway port (%(default)s)")
    up.add_argument("--node-nats", help="address of the broker that nodes are told")
    up.add_argument("--no-agent", action="store_true", help="do not lend this host")
    up.add_argument("-d", "--detach", action="store_true", help="in the background")
    up.add_argument("--brief", action="store_true", help=argparse.SUPPRESS)
    show.add_argument("--port", type=int, default=0, help="gateway port (a free one)")
    show.add_argument("--keep", action="store_true", help="leave it running afterwards")
    show.add_argument("--json", action="store_true", help="last line: one JSON object")
    return parser


def _options(words: argparse.Namespace) -> Options:
    return Options(
        state=words.state.resolve(),
        port=words.port or free_port(),
        nats_url=words.nats,
        nats_creds=words.nats_creds.resolve() if words.nats_creds else None,
        postgres_dsn=words.postgres,
        fleet=max(0, words.fleet),
        node_nats_url=getattr(words, "node_nats", None),
        agent=not getattr(words, "no_agent", False),
        metrics=os.environ.get("GRIDLEASE_METRICS_LISTEN", ""),
    )


def up_arguments(options: Options) -> list[str]:
    """The command line that means these options."""
    words = ["--state", str(options.state), "--port", str(options.port)]
    words += ["--fleet", str(options.fleet)]
    words += ["--nats", options.nats_url] if options.nats_url else []
    words += ["--node-nats", options.node_nats_url] if options.node_nats_url else []
    words += ["--nats-creds", str(options.nats_creds)] if options.nats_creds else []
    words += ["--postgres", options.postgres_dsn] if options.postgres_dsn else []
    words += [] if options.agent else ["--no-agent"]
    return [*words, "--brief"]


def how_to_use(options: Options) -> list[str]:
    """What to type next."""
    activate = Path(sys.executable).parent / "activate"
    return [
        f"The platform is up at {options.endpoint} (gRPC, plaintext on the loopback).",
        f"  . {activate}",
        f"  export GRIDLEASE_CLIENT_FILE={options.state / 'client.json'}",
        "  gridlease submit examples/train-digits/job.yaml --follow",
        f"  ./dev down --state {options.state}",
    ]


def _up(words: argparse.Namespace) -> int:
    options = _options(words)
    if not words.detach:
        lines = [] if words.brief else how_to_use(options)
        return Platform(options, say, lines).run()
    detached.start(StateFolder(options.state), up_arguments(options), say)
    for line in how_to_use(options):
        say(line)
    return 0


def _down(words: argparse.Namespace) -> int:
    folder = StateFolder(words.state.resolve())
    say("stopped" if detached.stop(folder) else f"nothing runs on {folder.root}")
    return 0


def _demo(words: argparse.Namespace) -> int:
    options = _options(words)
    folder = StateFolder(options.state)
    detached.start(folder, up_arguments(options), say)
    try:
        result = demo.run(options.endpoint, folder, _ROOT / "examples" / "train-digits", say)
    finally:
        if not words.keep:
            detached.stop(folder)
            say("stopped")
    if words.keep:
        for line in how_to_use(options):
            say(line)
    if words.json:
        sys.stdout.write(json.dumps(result) + "\n")
    return 0 if result["ok"] else 1


def main() -> int:
    """Run one verb; an expected failure is one sentence and exit code 1."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    words = _parser().parse_args()
    verbs = {"up": _up, "down": _down, "demo": _demo}
    try:
        return verbs[words.verb](words)
    except Fault as fault:
        say(f"./dev {words.verb}: {fault}")
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
