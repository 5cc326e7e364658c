"""``python -m gridlease_agent.update``: run, stage, back, show.

``run`` is what the service manager starts: everything after ``--`` is the agent's command line.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from gridlease_kernel.faults import Fault, Precondition
from gridlease_mesh import logs

from gridlease_agent.update.manifest import checked
from gridlease_agent.update.runner import Runner, Terms, arguments_of
from gridlease_agent.update.slots import Slots

EXPECTED_FAILURE = 2
KEYS = "GRIDLEASE_RELEASE_KEYS"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="gridlease_agent.update", description=__doc__)
    parser.add_argument("--home", type=Path, required=True, help="folder of the two slots")
    tasks = parser.add_subparsers(dest="task", required=True)
    run = tasks.add_parser("run", help="start the agent and change it when told")
    run.add_argument("--state", type=Path, required=True, help="the agent's own folder")
    run.add_argument("--trial", type=float, default=120.0, help="seconds that a new agent has")
    run.add_argument("arguments", nargs=argparse.REMAINDER, help="-- and the agent's flags")
    stage = tasks.add_parser("stage", help="check a release, unpack it, and ask for the change")
    stage.add_argument("manifest", type=Path, help="the signature lies beside it, ending in .sig")
    stage.add_argument("archive", type=Path, help="tar, holding lib/ or a virtual environment")
    tasks.add_parser("back", help="change to the other slot")
    tasks.add_parser("show", help="what is where, and how the last change went")
    return parser


def _stage(slots: Slots, manifest: Path, archive: Path) -> str:
    keys = os.environ.get(KEYS, "").split(",")
    signature = manifest.with_name(manifest.name + ".sig").read_bytes()
    release = checked(manifest.read_bytes(), signature, keys, time.time(), slots.read().highest)
    return f"{release.version} is in slot {slots.install(release, archive)}"


def _back(slots: Slots) -> str:
    slot = slots.other()
    if slot not in slots.read().versions:
        raise Precondition(
            "There is nothing to go back to.",
            reason="NO_OTHER_RELEASE",
            remedy="Stage a release first.",
        )
    slots.note(wanted=slot, said="")
    return f"the agent changes to slot {slot}"


def main(argv: Sequence[str]) -> int:
    """The exit code: 0, or 2 after an expected failure."""
    words = _parser().parse_args(argv)
    slots = Slots(words.home.absolute())
    try:
        if words.task == "run":
            logs.set_up("agent-update")
            if not slots.current() and not slots.read().wanted:
                raise Precondition(
                    "No release was ever staged here.",
                    reason="NO_RELEASE",
                    remedy="Stage one: gridlease_agent.update --home HOME stage MANIFEST ARCHIVE.",
                )
            terms = Terms(words.state.absolute(), arguments_of(words.arguments), words.trial)
            return Runner(slots, terms).run()
        if words.task == "stage":
            said = _stage(slots, words.manifest, words.archive)
        elif words.task == "back":
            said = _back(slots)
        else:
            said = json.dumps({"current": slots.current(), **asdict(slots.read())})
    except (Fault, OSError) as trouble:
        sys.stderr.write(f"gridlease_agent.update: {trouble}\n")
        return EXPECTED_FAILURE
    sys.stdout.write(said + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
