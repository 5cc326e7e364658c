"""Which chips there are, what is known of each, and which of them a request means.

The catalogue is data (``chips/*.toml``), given in as a value. A request names chips by their full
name (``A100-80GB``) or by family (``A100``), in any case, and may narrow them by vendor and memory.
"""

from __future__ import annotations

import difflib
import enum
import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from .software.facts import Facts

CPU_VENDOR = "cpu"
REFERENCE = "A100-80GB"  # throughput and cost are relative to it: it has 100 of each


class Kind(enum.StrEnum):
    """What a chip is. The order is the one in which training overflows."""

    GPU = "gpu"
    TPU = "tpu"
    ASIC = "asic"
    EDGE = "edge"
    FPGA = "fpga"
    CPU = "cpu"


class Work(enum.StrEnum):
    """A class of work, for which throughput is known by itself."""

    TRAINING = "training"
    INFERENCE = "inference"
    BATCH = "batch"


class Basis(enum.StrEnum):
    """Where a throughput comes from, the surest first."""

    MEASURED = "measured"  # a published measurement, named in the source
    PUBLISHED = "published"  # the vendor's or a paper's own ratio
    ROOFLINE = "roofline"  # computed from tflops and memory bandwidth: see ``roofline``
    ESTIMATE = "estimate"


@dataclass(frozen=True, slots=True)
class Interconnect:
    """How devices of one host reach one another; GB/s of one device, both directions together."""

    kind: str = "none"  # nvlink, pcie, ici, xgmi, xelink, ethernet or none
    gbytes_per_s: int = 0


@dataclass(frozen=True, slots=True)
class Embodied:
    """Carbon of making one chip, in kg of CO2e, give or take a part of it."""

    kg: int
    uncertainty_percent: int
    source: str


@dataclass(frozen=True, slots=True)
class Chip:
    """One catalogue entry. ``throughput`` and ``cost`` are relative: A100-80GB = 100.

    ``throughput`` is of training; ``inference`` and ``batch`` have figures of their own, and 0
    says that there is none.
    """

    name: str
    vendor: str
    family: str
    memory_bytes: int
    idle_watts: int
    peak_watts: int
    throughput: int
    cost: int
    source: str
    kind: Kind = Kind.GPU
    architecture: str = ""  # sm_80, gfx942, aarch64 ...; "" = not known
    inference: int = 0
    batch: int = 0
    basis: tuple[Basis, Basis, Basis] = (Basis.ESTIMATE, Basis.ESTIMATE, Basis.ESTIMATE)
    latency_us: tuple[tuple[str, int], ...] = ()  # model class -> p90 of single requests
    interconnect: Interconnect = Interconnect()
    tflops: int = 0  # dense, 16 bit; 32 bit where the chip has no faster 16 bit
    memory_gbytes_per_s: int = 0
    data_centre: bool = False  # may use forward-compatible CUDA libraries
    embodied: Embodied | None = None
    aliases: tuple[str, ...] = ()  # what nodes may call it

    def throughput_for(self, work: Work) -> int:
        """The figure of a class of work; of training where it has none of its own."""
        match work:
            case Work.TRAINING:
                return self.throughput
            case Work.INFERENCE:
                return self.inference or self.throughput
            case Work.BATCH:
                return self.batch or self.throughput

    def latency_for(self, model_class: str) -> int | None:
        """Microseconds of one request to a model of this class; None = not published."""
        return dict(self.latency_us).get(model_class.lower())


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
    """All entries, by name, and the tables of what drivers and programs go together."""

    chips: tuple[Chip, ...]
    facts: Facts = field(default=Facts(), repr=False, compare=False)
    _by_name: dict[str, Chip] = field(init=False, repr=False, compare=False)
    _known: dict[str, str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        by_name = {alias.lower(): chip for chip in self.chips for alias in chip.aliases}
        by_name |= {chip.name.lower(): chip for chip in self.chips}
        object.__setattr__(self, "_by_name", by_name)
        known = {chip.name.lower(): chip.name for chip in self.accelerators()}
        known |= {chip.family.lower(): chip.family for chip in self.accelerators()}
        object.__setattr__(self, "_known", known)

    def find(self, name: str) -> Chip | None:
        """The entry of exactly this name or alias, in any case."""
        return self._by_name.get(name.lower())

    def canonical(self, name: str) -> str:
        """The catalogue's own name for what a node calls a chip; the node's where it has none."""
        chip = self.find(name)
        return chip.name if chip is not None else name

    def unknown(self, names: Iterable[str]) -> UnknownChip | None:
        """The first name that means no accelerator, if there is one."""
        known = self._known
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


def roofline(tflops: int, memory_gbytes_per_s: int) -> int:
    """A throughput from two figures of a data sheet, A100-80GB = 100, at least 1.

    The geometric mean of the ratios of compute and of memory bandwidth: real work lies between
    the two roofs. A stand-in until somebody measures.

    Source: A100-80GB (SXM) data sheet, 312 dense TFLOP/s in 16 bit and 2,039 GB/s; the roofline
    model of Williams, Waterman and Patterson, CACM 52(4), 2009.

    >>> roofline(312, 2_039)
    100
    """
    ratio = tflops * memory_gbytes_per_s / (312 * 2_039)
    return max(1, round(100 * math.sqrt(ratio)))
