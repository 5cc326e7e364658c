"""The chip catalogue from the package's data files."""

from __future__ import annotations

import importlib.resources
import tomllib

from gridlease_scheduler.domain.chips import Catalogue, Chip


def load() -> Catalogue:
    """All entries of ``chips/*.toml``; a malformed or doubled one is a bug."""
    folder = importlib.resources.files("gridlease_scheduler") / "chips"
    chips: dict[str, Chip] = {}
    for file in sorted(folder.iterdir(), key=lambda each: each.name):
        if not file.name.endswith(".toml"):
            continue
        for entry in tomllib.loads(file.read_text(encoding="utf-8"))["chip"]:
            chip = Chip(**entry)
            assert chip.name not in chips, chip.name
            chips[chip.name] = chip
    return Catalogue(tuple(chips.values()))
