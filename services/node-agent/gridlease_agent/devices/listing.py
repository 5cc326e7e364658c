"""Devices of a family, by its listing: folders below an injectable root, and values in files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from gridlease_agent.devices.family import Family, Reading
from gridlease_agent.probes.facts import DeviceFacts
from gridlease_agent.probes.reading import text


def is_present(family: Family, root: Path) -> bool:
    """Does this host show the family at all?"""
    return any(any(root.glob(pattern.lstrip("/"))) for pattern in family.present)


def devices(family: Family, root: Path) -> tuple[DeviceFacts, ...]:
    """Every device that the listing finds, in the order of its numbers."""
    found = [
        _facts(family, root, place, order) for order, place in enumerate(_places(family, root))
    ]
    return tuple(sorted(found, key=lambda x: (x.index, x.id)))


def _places(family: Family, root: Path) -> Iterator[Path]:
    for place in sorted(root.glob(family.listing.glob.lstrip("/"))):
        if all(value(each, root, place) for each in family.listing.where):
            yield place


def _facts(family: Family, root: Path, place: Path, order: int) -> DeviceFacts:
    fields = {
        name: first(readings, root, place) for name, readings in family.listing.fields.items()
    }
    fields.setdefault("name", place.name)
    index = int(fields.get("index") or order)
    fields["index"] = str(index)
    memory = fields.get("memory", "")
    return DeviceFacts(
        id=fields.get("id") or f"{family.name}-{index}",
        index=index,
        family=family.family,
        vendor=family.vendor,
        chip=fields.get("chip") or "unknown",
        memory_bytes=int(memory, 0) if memory else 0,
        driver=fields.get("driver", ""),
        bus=fields.get("bus", ""),
        nodes=nodes(family, root, fields),
        kind=family.kind,
        part_of=fields.get("part_of", ""),
        apart=fields.get("apart", "yes") != "no",
    )


def nodes(
    family: Family, root: Path, fields: dict[str, str], *, part: bool = False
) -> tuple[str, ...]:
    """The device's own nodes, then those that its family shares; only those that are there."""
    own = family.part_nodes if part else family.nodes
    return tuple(_nodes(family, (*own, *family.shared_nodes), root, fields))


def _nodes(
    family: Family, patterns: tuple[str, ...], root: Path, fields: dict[str, str]
) -> Iterator[str]:
    never = [re.compile(pattern) for pattern in family.never]
    for pattern in patterns:
        filled = pattern.format_map(_Absent(fields))
        for path in sorted(root.glob(filled.lstrip("/"))):
            node = "/" + str(path.relative_to(root))
            if not any(one.fullmatch(node) for one in never):
                yield node


class _Absent(dict[str, str]):
    """A field that was not found matches no node."""

    def __missing__(self, key: str) -> str:
        return "\0"


def first(readings: tuple[Reading, ...], root: Path, place: Path) -> str:
    """The first reading that finds something; "" where none does."""
    return next((found for each in readings if (found := value(each, root, place))), "")


def value(reading: Reading, root: Path, place: Path) -> str:
    """What a reading finds; "" for nothing. A file name may be a pattern: the first that is there.

    A scaled value that is no number is nothing.
    """
    if reading.literal:
        return reading.literal
    found = re.search(reading.pattern, _content(reading, root, place))
    if found is None:
        return ""
    plain = found.group(1).strip()
    if reading.values:
        return reading.values.get(plain, "")
    if reading.scale == 1:
        return plain
    return str(int(plain, 0) * reading.scale) if re.fullmatch(r"-?\d+|0x[0-9a-f]+", plain) else ""


def _content(reading: Reading, root: Path, place: Path) -> str:
    if not reading.file:
        return place.name
    base, name = (root, reading.file[1:]) if reading.file.startswith("/") else (place, reading.file)
    if not re.search(r"[*?\[]", name):
        return text(base, name)
    return next((text(path.parent, path.name) for path in sorted(base.glob(name))), "")
