"""The tables of drivers, toolkits and devices from data files."""

from __future__ import annotations

import importlib.resources
from collections.abc import Iterable
from importlib.resources.abc import Traversable

from gridlease_scheduler.adapters.tables import Table, files, sections
from gridlease_scheduler.domain.software.facts import (
    Capability,
    Facts,
    Jetpack,
    Rocm,
    Toolkit,
    version,
)

_REASON = "BAD_COMPAT_FILE"
_KEYS = ("source", "toolkit", "minor", "capability", "branch", "jetpack", "rocm")


def load_facts(folders: Iterable[Traversable] = ()) -> Facts:
    """The records of ``compat/*.toml`` and of further folders, which add to them.

    Raises:
        Invalid: BAD_COMPAT_FILE, naming the file, the field and the remedy.
    """
    found: dict[str, list[Table]] = {key: [] for key in _KEYS}
    own = importlib.resources.files("gridlease_scheduler") / "compat"
    for folder in (own, *folders):
        for file in files(folder):
            for key, tables in sections(file, _KEYS, _REASON).items():
                found[key] += tables
    facts = Facts(
        toolkits=tuple(
            Toolkit(_version(it, "cuda"), it.whole("update"), _version(it, "driver"))
            for it in found["toolkit"]
        ),
        floors={it.whole("cuda_major", low=1): _version(it, "driver") for it in found["minor"]},
        capabilities=tuple(_capability(it) for it in found["capability"]),
        branch_names={it.whole("branch", low=1): it.text("designation") for it in found["branch"]},
        jetpacks=tuple(_jetpack(it) for it in found["jetpack"]),
        rocms=tuple(_rocm(it) for it in found["rocm"]),
        sources={it.text("of"): it.text("text") for it in found["source"]},
    )
    _rest(found)
    return facts


def _capability(table: Table) -> Capability:
    return Capability(
        _version(table, "capability"),
        table.text("architecture"),
        table.text("devices"),
        table.flag("jetson"),
        _version(table, "first_cuda", ""),
        _version(table, "last_cuda", ""),
    )


def _jetpack(table: Table) -> Jetpack:
    return Jetpack(
        table.text("jetpack"),
        _version(table, "l4t"),
        _version(table, "cuda"),
        table.text("ubuntu"),
        table.texts("capabilities"),
        table.text("confidence"),
    )


def _rocm(table: Table) -> Rocm:
    return Rocm(
        _version(table, "rocm"),
        table.texts("targets"),
        table.texts("wheel_targets"),
        _version(table, "driver_low"),
        _version(table, "driver_high"),
    )


def _version(table: Table, name: str, default: str | None = None) -> str:
    text = table.text(name, default)
    if text and version(text) is None:
        table.refuse(name, f"{text!r} is no version.", 'Write numbers with dots: "550.54.15".')
    return text


def _rest(found: dict[str, list[Table]]) -> None:
    """Fields that are for the reader, and then none that nobody knows."""
    for table in found["minor"]:
        table.text("note", "")
    for table in found["branch"]:
        table.text("end_of_life", "")
        table.whole("cuda_major", 0)
    for tables in found.values():
        for table in tables:
            table.close()
