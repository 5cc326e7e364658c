"""A family of devices as data: where its devices are listed and what a sandbox needs of them.

``families/*.toml`` holds one family a file. Nothing in code knows a family's name, but for the
listers that a file may ask for by name (``nvml``).
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gridlease_kernel.faults import Invalid

FOLDER = Path(__file__).parent.parent / "families"
SCRUBBERS = ("cuda", "file", "program")


@dataclass(frozen=True, slots=True)
class Reading:
    """How to learn one value: the first group of ``pattern`` in a file, mapped and scaled.

    ``file`` is relative to the listed folder, or to the root where it begins with "/"; empty =
    the folder's own name. ``values`` maps what was found; ``literal`` needs no file at all.
    """

    file: str = ""
    pattern: str = "(?s)(.*)"
    values: Mapping[str, str] = field(default_factory=dict)
    scale: int = 1
    literal: str = ""


@dataclass(frozen=True, slots=True)
class Listing:
    """Folders that are devices: ``glob`` below the root, kept where every condition holds."""

    glob: str
    where: tuple[Reading, ...] = ()  # each must find something
    fields: Mapping[str, tuple[Reading, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Family:
    """One data file. Paths of nodes and mounts may name fields of a device: ``/dev/x{index}``."""

    name: str
    family: str  # gpu, jetson, tpu, fpga: what the catalogue calls the class
    vendor: str
    kind: str  # CDI's "vendor/class"
    present: tuple[str, ...]  # one of these must exist below the root
    lister: str  # a lister known to code, tried before the listing; empty = none
    listing: Listing
    nodes: tuple[str, ...]  # of each device; a pattern may match none
    shared_nodes: tuple[str, ...]  # of the whole family: handed over with any of its devices
    never: tuple[str, ...]  # nodes that no tenant may ever have
    mounts: tuple[str, ...]
    env: Mapping[str, str]
    weaker: str  # what is not isolated between two tenants of one host, in words
    telemetry: Mapping[str, tuple[Reading, ...]]  # quantity -> where it is read
    hooks: tuple[Mapping[str, Any], ...] = ()  # CDI's, run only where their digest is allowed
    scrub: Mapping[str, str] = field(default_factory=dict)  # how its memory is wiped; {} = nobody
    part_nodes: tuple[str, ...] = ()  # of a part that has memory of its own, in place of nodes


def load(folder: Path = FOLDER, own: Path | None = None) -> tuple[Family, ...]:
    """Every family, by file name; an operator's ``own`` file takes the place of one of its name.

    Raises:
        Invalid: BAD_FAMILY, naming the file and the field.
    """
    found = {path.name: path for path in folder.glob("*.toml")}
    if own is not None:
        found |= {path.name: path for path in own.glob("*.toml")}
    return tuple(read(found[name]) for name in sorted(found))


def read(path: Path) -> Family:
    """One family.

    Raises:
        Invalid: BAD_FAMILY.
    """
    try:
        table = tomllib.loads(path.read_text("utf-8"))
        return _family(table)
    except KeyError as missing:
        raise _bad(path, str(missing.args[0]), "is missing") from missing
    except (tomllib.TOMLDecodeError, TypeError, ValueError, re.error) as trouble:
        raise _bad(path, "", str(trouble)) from trouble


def _family(table: dict[str, Any]) -> Family:
    name = table["name"]
    hand, listing = table["hand"], table["list"]
    return Family(
        name=name,
        family=table["family"],
        vendor=table["vendor"],
        kind=table["kind"],
        present=tuple(table["present"]),
        lister=table.get("lister", ""),
        listing=Listing(
            listing["glob"],
            tuple(_reading(each) for each in listing.get("where", ())),
            _fields(listing.get("fields", {})),
        ),
        nodes=tuple(hand["nodes"]),
        shared_nodes=tuple(hand.get("shared_nodes", ())),
        never=tuple(hand.get("never", ())),
        mounts=tuple(hand.get("mounts", ())),
        env=dict(hand.get("env", {})),
        weaker=table.get("weaker", ""),
        telemetry=_fields(table.get("telemetry", {})),
        hooks=tuple(hand.get("hooks", ())),
        scrub=_scrub(table.get("scrub", {})),
        part_nodes=tuple(hand.get("part_nodes", ())),
    )


def _scrub(table: dict[str, Any]) -> dict[str, str]:
    """``by``: cuda, file or program; ``path``: the file or the program, with a device's fields."""
    if table and table["by"] not in SCRUBBERS:
        raise ValueError(f"scrub.by is {table['by']!r}, none of {', '.join(SCRUBBERS)}")
    if table and table["by"] != "cuda":
        table["path"]  # named where it is missing
    return {key: str(text) for key, text in table.items()}


def _fields(table: dict[str, Any]) -> dict[str, tuple[Reading, ...]]:
    return {
        name: tuple(_reading(each) for each in (given if isinstance(given, list) else [given]))
        for name, given in table.items()
    }


def _reading(table: dict[str, Any]) -> Reading:
    reading = Reading(**table)
    if re.compile(reading.pattern).groups < 1:
        raise ValueError(f"pattern {reading.pattern!r} has no group")
    return reading


def _bad(path: Path, name: str, trouble: str) -> Invalid:
    return Invalid(
        f"The device family {path.name} cannot be used: {name} {trouble}.".replace("  ", " "),
        reason="BAD_FAMILY",
        field=f"{path.name}:{name}" if name else path.name,
        remedy="Correct the file; docs/devices.md explains each field.",
    )
