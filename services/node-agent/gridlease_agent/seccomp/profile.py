"""What a task may ask of the kernel, read from ``strict.json`` into one record."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from importlib import resources
from typing import Any, Literal

Arch = Literal["x86_64", "aarch64"]
EPERM = 1
ENOSYS = 38

Condition = tuple[tuple[int, int], ...]
"""Equalities (argument index, value) that must all hold."""


@dataclass(frozen=True, slots=True)
class Checked:
    """A call that is allowed or denied by its arguments (their low 32 bits)."""

    name: str
    nr: int
    errno: int
    allow_equal: tuple[Condition, ...] = ()
    deny_equal: tuple[Condition, ...] = ()
    deny_bits: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Profile:
    """One architecture's profile: numbers by name."""

    arch: Arch
    allow: dict[str, int]
    deny: dict[str, int]
    absent: dict[str, int]
    checked: tuple[Checked, ...]


def _conditions(rows: Any) -> tuple[Condition, ...]:
    return tuple(tuple((arg, value) for arg, value in row) for row in rows)


@functools.cache
def load(arch: Arch) -> Profile:
    """The profile of ``arch``, without the calls that it does not have."""
    data = json.loads(resources.files(__package__).joinpath("strict.json").read_text("utf-8"))
    column = 0 if arch == "x86_64" else 1

    def numbers(section: str) -> dict[str, int]:
        rows = data[section].items()
        return {name: nr[column] for name, nr in rows if nr[column] >= 0}

    checked = tuple(
        Checked(
            name=name,
            nr=row["nr"][column],
            errno=row["errno"],
            allow_equal=_conditions(row.get("allow_equal", ())),
            deny_equal=_conditions(row.get("deny_equal", ())),
            deny_bits=(row["deny_bits"][0], row["deny_bits"][1]) if "deny_bits" in row else None,
        )
        for name, row in data["checked"].items()
    )
    return Profile(arch, numbers("allow"), numbers("deny"), numbers("absent"), checked)
