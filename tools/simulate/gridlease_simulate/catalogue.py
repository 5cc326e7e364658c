"""The scheduler's chips, those of published traces, and those that a cluster file adds."""

from __future__ import annotations

import dataclasses
import importlib.resources
from typing import Any

from gridlease_scheduler.adapters import catalogue as shipped
from gridlease_scheduler.domain.chips import Catalogue, Chip

from gridlease_simulate.fields import Table

_KNOWN = {"name", "vendor", "family", "memory", "idle_watts", "peak_watts", "throughput", "cost"}


def load() -> Catalogue:
    """The shipped catalogue, and what only traces need."""
    return shipped.load([importlib.resources.files("gridlease_simulate") / "chips"])


def with_chips(catalogue: Catalogue, chips: list[Chip]) -> Catalogue:
    """The catalogue with further entries; one of the same name is replaced."""
    names = {each.name.lower() for each in chips}
    kept = [each for each in catalogue.chips if each.name.lower() not in names]
    return dataclasses.replace(catalogue, chips=(*kept, *chips))


def read(table: Table, catalogue: Catalogue) -> Chip:
    """One ``[[chip]]`` of a cluster file: new, or an entry of the catalogue with other figures.

    Raises:
        Invalid: what ``Table`` raises.
    """
    name = table.text("name")
    known = catalogue.find(name)
    facts: dict[str, Any] = {
        "name": known.name if known else name,
        "vendor": table.text("vendor", known.vendor if known else "nvidia"),
        "family": table.text("family", known.family if known else name),
        "memory_bytes": table.size("memory", known.memory_bytes if known else 0),
        "idle_watts": table.whole("idle_watts", known.idle_watts if known else None),
        "peak_watts": table.whole("peak_watts", known.peak_watts if known else None),
        "throughput": table.whole("throughput", known.throughput if known else None, least=1),
        "cost": table.whole("cost", known.cost if known else None),
        "source": table.text("source", known.source if known else "the cluster file"),
    }
    table.end(also=_KNOWN)
    return dataclasses.replace(known, **facts) if known else Chip(**facts)
