"""The chip catalogue from data files: the package's own, and those of an operator's folders."""

from __future__ import annotations

import importlib.resources
from collections.abc import Iterable
from importlib.resources.abc import Traversable

from gridlease_scheduler.adapters.compat import load_facts
from gridlease_scheduler.adapters.tables import Table, entries, files
from gridlease_scheduler.domain.chips import (
    Basis,
    Catalogue,
    Chip,
    Embodied,
    Interconnect,
    Kind,
    Work,
)

_REASON = "BAD_CHIP_FILE"
_INTERCONNECTS = ("nvlink", "pcie", "ici", "xgmi", "xelink", "ethernet", "none")


def load(folders: Iterable[Traversable] = ()) -> Catalogue:
    """All entries of ``chips/*.toml``, then those of further folders.

    An entry of a later folder replaces one of the same name: an operator's measured figures go
    before the published ones.

    Raises:
        Invalid: BAD_CHIP_FILE, naming the file, the field and the remedy.
    """
    chips: dict[str, Chip] = {}
    own = importlib.resources.files("gridlease_scheduler") / "chips"
    for folder in (own, *folders):
        chips |= {chip.name: chip for chip in read(folder)}
    return Catalogue(tuple(chips.values()), load_facts())


def read(folder: Traversable) -> tuple[Chip, ...]:
    """The entries of one folder.

    Raises:
        Invalid: BAD_CHIP_FILE.
    """
    chips: dict[str, Chip] = {}
    for file in files(folder):
        for table in entries(file, "chip", _REASON):
            chip = _chip(table)
            if chip.name.lower() in chips:
                table.refuse(
                    "name", f"{chip.name!r} stands twice in this folder.", "Give it another name."
                )
            chips[chip.name.lower()] = chip
    return tuple(chips.values())


def _chip(table: Table) -> Chip:
    kind = Kind(table.choice("kind", list(Kind)))
    throughput = table.inner("throughput")
    idle = table.whole("idle_watts")
    chip = Chip(
        name=table.text("name"),
        vendor=table.text("vendor"),
        family=table.text("family"),
        memory_bytes=table.whole("memory_bytes", low=0 if kind is Kind.CPU else 1),
        idle_watts=idle,
        peak_watts=table.whole("peak_watts", low=max(1, idle)),
        throughput=throughput.whole("training", low=1),
        cost=table.whole("cost", low=1),
        source=table.text("source"),
        kind=kind,
        architecture=table.text("architecture"),
        inference=throughput.whole("inference", 0),
        batch=throughput.whole("batch", 0),
        basis=_basis(table),
        latency_us=table.wholes("latency_us"),
        interconnect=_interconnect(table),
        tflops=table.whole("tflops", 0),
        memory_gbytes_per_s=table.whole("memory_gbytes_per_s", 0),
        data_centre=table.flag("data_centre"),
        embodied=_embodied(table),
        aliases=table.texts("aliases"),
    )
    throughput.close()
    table.close()
    return chip


def _basis(table: Table) -> tuple[Basis, Basis, Basis]:
    inner = table.table("basis", optional=True)
    if inner is None:
        return (Basis.ESTIMATE, Basis.ESTIMATE, Basis.ESTIMATE)
    words = [inner.choice(work, list(Basis), Basis.ESTIMATE) for work in Work]
    inner.close()
    return (Basis(words[0]), Basis(words[1]), Basis(words[2]))


def _interconnect(table: Table) -> Interconnect:
    inner = table.table("interconnect", optional=True)
    if inner is None:
        return Interconnect()
    found = Interconnect(inner.choice("kind", _INTERCONNECTS), inner.whole("gbytes_per_s"))
    inner.close()
    return found


def _embodied(table: Table) -> Embodied | None:
    inner = table.table("embodied", optional=True)
    if inner is None:
        return None
    found = Embodied(
        inner.whole("kg", low=1), inner.whole("uncertainty_percent"), inner.text("source")
    )
    inner.close()
    return found
