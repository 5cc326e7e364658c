"""Which chips there are, and which of them a request means.

The catalogue is data (``chips/*.toml``), given in as a value. A request names chips by their full
name (``A100-80GB``) or by family (``A100``), in any case, and may narrow them by vendor and memory.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

CPU_VENDOR = "cpu"


@dataclass(frozen=True, slots=True)
class Chip:
    """One catalogue entry. ``throughput`` and ``cost`` are relative: A100-80GB = 100."""

    name: str
    vendor: str
    family: str
    memory_bytes: int
    idle_watts: int
    peak_watts: int
    throughput: int
    cost: int
    source: str


@dataclass(frozen=True, slots=True)
class AcceleratorNeed:
    """What a task asks of its devices; ``count`` devices of one chip on one node."""

    chips: tuple[str, ...] = ()
    vendor: str = ""
    memory_min_bytes: int = 0
    memory_max_bytes: int = 0  # 0 = no upper end
    count: int = 1


@dataclass(frozen=True, slots=True)
class UnknownChip:
    """A name that no entry has, with those nearest to it."""

    name: str
    nearest: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All entries, by name."""

    chips: tuple[Chip, ...]

    def find(self, name: str) -> Chip | None:
        """The entry of exactly this name, in any case."""
        wanted = name.lower()
        return next((chip for chip in self.chips if chip.name.lower() == wanted), None)

    def unknown(self, names: Iterable[str]) -> UnknownChip | None:
        """The first name that means no accelerator, if there is one."""
        known = {chip.name.lower(): chip.name for chip in self.accelerators()}
        known |= {chip.family.lower(): chip.family for chip in self.accelerators()}
        for name in names:
            if name.lower() not in known:
                close = difflib.get_close_matches(name.lower(), list(known), n=3, cutoff=0.5)
                return UnknownChip(name, tuple(known[key] for key in close))
        return None

    def accelerators(self) -> tuple[Chip, ...]:
        """All but the CPUs."""
        return tuple(chip for chip in self.chips if chip.vendor != CPU_VENDOR)

    def matching(self, need: AcceleratorNeed) -> tuple[Chip, ...]:
        """The entries that meet a request."""
        return tuple(
            chip
            for chip in self.accelerators()
            if meets(need, chip.name, chip.family, chip.vendor, chip.memory_bytes)
        )

    def family_of(self, name: str) -> str:
        """A chip's family; its own name where the catalogue lacks it."""
        chip = self.find(name)
        return chip.family if chip is not None else name


def meets(need: AcceleratorNeed, name: str, family: str, vendor: str, memory_bytes: int) -> bool:
    """Does a chip meet a request?"""
    named = not need.chips or any(
        wanted.lower() in (name.lower(), family.lower()) for wanted in need.chips
    )
    return (
        named
        and (not need.vendor or need.vendor.lower() == vendor.lower())
        and memory_bytes >= need.memory_min_bytes
        and (need.memory_max_bytes == 0 or memory_bytes <= need.memory_max_bytes)
    )
