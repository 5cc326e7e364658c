"""The table of probes: what an attacker inside a sandbox tries, and what must come of it.

A row of ``table/*.toml`` is [name, what it tries, the words of the attempt, what must come of it]
and, where bubblewrap does not promise that, a fifth column that says so in words.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
STRICT = HERE.parents[1] / "services/node-agent/gridlease_agent/seccomp/strict.json"
GONE = {"ENOENT", "ENOTDIR", "ENXIO", "ENODEV", "ESRCH"}
REFUSED = {"EPERM", "EACCES", "EROFS"}
MEANINGS = {
    "gone": GONE,
    "refused": REFUSED,
    "denied": GONE | REFUSED,
    "filtered": {"EPERM", "ENOSYS"},  # the filter's own answers: the kernel never looked at it
    "unreached": {"ECONNREFUSED", "ENETUNREACH", "EHOSTUNREACH", "EADDRNOTAVAIL", "timeout"},
}


@dataclass(frozen=True, slots=True)
class Probe:
    """One row."""

    kind: str
    name: str
    tries: str
    words: tuple[Any, ...]
    must: str
    unpromised: str = ""

    def holds(self, outcome: str) -> bool:
        """Whether that may come of it. ``a|b``: either; ``=text``: this text."""
        wanted: set[str] = set()
        for word in self.must.split("|"):
            wanted |= MEANINGS.get(word, {word.removeprefix("=")})
        return outcome in wanted


def _numbers(arch: str) -> dict[str, int]:
    """Every system call's number that the profile knows of."""
    data = json.loads(STRICT.read_text("utf-8"))
    column = 0 if arch == "x86_64" else 1
    found = {name: row["nr"][column] for name, row in data["checked"].items()}
    for section in ("allow", "deny", "absent"):
        found |= {name: row[column] for name, row in data[section].items()}
    return found


def load(arch: str, facts: Mapping[str, str | int]) -> list[Probe]:
    """Every probe that makes sense on ``arch``, with the facts of this run in place of $names."""
    numbers, probes = _numbers(arch), []
    for path in sorted((HERE / "table").glob("*.toml")):
        table = tomllib.loads(path.read_text("utf-8"))
        if table.get("arch", arch) != arch:
            continue
        for name, tries, words, must, *rest in table["probes"]:
            full = [_filled(word, facts) for word in words]
            if words[0] == "call" and isinstance(words[1], str):
                if numbers[words[1]] < 0:
                    continue
                full.insert(2, numbers[words[1]])
            elif words[0] == "call":
                full.insert(1, name)
            assert not facts or "$" not in str(full), (name, full)  # an unknown fact hides nothing
            probes.append(Probe(path.stem, name, tries, tuple(full), must, *rest))
    names = [probe.name for probe in probes]
    assert len(set(names)) == len(names), sorted({n for n in names if names.count(n) > 1})
    return probes


def _filled(word: Any, facts: Mapping[str, str | int]) -> Any:
    if not isinstance(word, str):
        return word
    if word.startswith("$") and word[1:] in facts:
        return facts[word[1:]]
    for name, value in facts.items():
        word = word.replace("{$" + name + "}", str(value))
    return word
