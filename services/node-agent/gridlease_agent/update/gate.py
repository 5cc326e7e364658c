"""Does a new agent do well? It has every task that ran before it, and is heard by the centre.

The agent writes ``health.json`` into its state folder (``gridlease_agent.health``); the keepers'
own files say what ran. Nothing is asked of the new agent that a broken one could not fail to do.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gridlease_agent import shim
from gridlease_agent.health import FILE, ROUNDS


@dataclass(frozen=True, slots=True)
class Gate:
    """What has to be there. ``tasks``: those that ran when the old agent was stopped."""

    state: Path
    tasks: frozenset[str]

    @classmethod
    def before(cls, state: Path) -> Gate:
        """Note what runs, and forget what an earlier agent said of itself."""
        (state / FILE).unlink(missing_ok=True)
        return cls(state, frozenset(_running(state)))

    def lacks(self) -> str:
        """What is still missing, in words; "" = it does well."""
        said = _read(self.state / FILE)
        if said is None:
            return "it has said nothing yet"
        lost = {x for x in self.tasks - set(said.get("adopted", ())) if not _over(self.state, x)}
        if lost:
            return f"it has not adopted {', '.join(sorted(lost)[:3])}"
        if int(said.get("synced", 0)) < ROUNDS:
            return "the scheduler has not answered it often enough"
        if self.tasks and int(said.get("settled", 0)) < 1:
            return "billing has not answered it"
        return ""


def _running(state: Path) -> list[str]:
    """Leases whose keepers live."""
    found = []
    for path in (state / "leases").glob("*/shim.json"):
        own = _read(path)
        if own is None or (path.parent / "exit.json").exists():
            continue
        alive = shim.start_ticks(own.get("pid", 0)) == own.get("start_ticks")
        if alive and own.get("boot_id") == shim.boot_id():
            found.append(path.parent.name)
    return found


def _over(state: Path, lease_id: str) -> bool:
    folder = state / "leases" / lease_id
    return not folder.exists() or (folder / "exit.json").exists()


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
