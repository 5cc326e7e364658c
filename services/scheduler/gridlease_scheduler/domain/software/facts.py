"""The tables that say which driver, toolkit and device go together, as values.

They are read from ``compat/*.toml`` and asked by ``compat``. A version is a tuple of whole numbers
without trailing zeros, so 13.0 and 13 are the same and 12.10 comes after 12.9.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

Version: TypeAlias = tuple[int, ...]

OPEN: Version = (1_000_000,)  # later than any version


@dataclass(frozen=True, slots=True)
class Toolkit:
    """One release of CUDA, and the driver that came with it. ``update`` 0 = the first release."""

    cuda: str
    update: int
    driver: str


@dataclass(frozen=True, slots=True)
class Capability:
    """A compute capability, and the toolkits that know it; an empty end is open."""

    text: str
    architecture: str
    devices: str
    jetson: bool = False
    first_cuda: str = ""
    last_cuda: str = ""

    @property
    def first(self) -> Version:
        """The first toolkit that knows it."""
        return version(self.first_cuda) or ()

    @property
    def last(self) -> Version:
        """The last toolkit that knows it."""
        return version(self.last_cuda) or OPEN


@dataclass(frozen=True, slots=True)
class Jetpack:
    """One release of JetPack. ``confidence``: read, or how it was inferred."""

    jetpack: str
    l4t: str
    cuda: str
    ubuntu: str
    capabilities: tuple[str, ...]
    confidence: str


@dataclass(frozen=True, slots=True)
class Rocm:
    """One release of ROCm; ``driver_low`` and ``driver_high`` bound the kernel drivers tested."""

    rocm: str
    targets: tuple[str, ...]
    wheel_targets: tuple[str, ...]
    driver_low: str
    driver_high: str


@dataclass(frozen=True, slots=True)
class Facts:
    """All tables. ``floors``: CUDA major -> lowest driver. ``branches``: branch -> designation.
    ``sources``: table -> where its facts come from."""

    toolkits: tuple[Toolkit, ...] = ()
    floors: Mapping[int, str] | None = None
    capabilities: tuple[Capability, ...] = ()
    branch_names: Mapping[int, str] | None = None
    jetpacks: tuple[Jetpack, ...] = ()
    rocms: tuple[Rocm, ...] = ()
    sources: Mapping[str, str] | None = None

    @property
    def branches(self) -> frozenset[int]:
        """The data-centre driver branches."""
        return frozenset(self.branch_names or {})

    def source(self, table: str) -> str:
        """Where the facts of a table come from."""
        return (self.sources or {}).get(table, "")

    def capability(self, capability: Version | None) -> Capability | None:
        """What is known of a compute capability."""
        found = (it for it in self.capabilities if version(it.text) == capability)
        return next(found, None) if capability is not None else None

    def toolkit(self, cuda: str) -> Version | None:
        """Major and minor of a toolkit's version; None where it is none."""
        return minor(cuda)

    def driver_for(self, cuda: str) -> str | None:
        """A driver that suffices for a toolkit; None where the tables end before it.

        Without an update, or with one that the tables lack, it is the newest driver of the release;
        for a release that they lack, that of the next one.
        """
        wanted = self.toolkit(cuda)
        if wanted is None:
            return None
        parts = cuda.split(".")
        update = int(parts[2]) if len(parts) > 2 and parts[2].isdigit() else -1
        later = sorted({v for it in self.toolkits if (v := version(it.cuda) or ()) >= wanted})
        if not later:
            return None
        rows = [it for it in self.toolkits if version(it.cuda) == later[0]]
        exact = [it for it in rows if later[0] == wanted and it.update == update]
        return max((it.driver for it in exact or rows), key=lambda text: version(text) or ())

    def floor(self, cuda_major: int) -> str | None:
        """The lowest driver for toolkits of a major that carry code for the device."""
        return (self.floors or {}).get(cuda_major)

    def jetpack_of(self, l4t: Version) -> Jetpack | None:
        """The newest JetPack of the tables, of the same L4T major, that is not after this L4T."""
        found = [
            it for it in self.jetpacks if (v := version(it.l4t) or ())[:1] == l4t[:1] and v <= l4t
        ]
        return max(found, key=lambda it: version(it.l4t) or (), default=None)

    def jetpack_named(self, name: str) -> Jetpack | None:
        """A JetPack by its name."""
        found = (it for it in self.jetpacks if it.jetpack.lower() == name.strip().lower())
        return next(found, None)

    def jetpack_for(self, toolkit: Version, capability: str) -> Jetpack | None:
        """The earliest JetPack with a toolkit at least as new, for a device."""
        found = [
            it
            for it in self.jetpacks
            if (version(it.cuda) or ()) >= toolkit and capability in it.capabilities
        ]
        return min(found, key=lambda it: version(it.l4t) or (), default=None)

    def rocm(self, text: str) -> Rocm | None:
        """The release of ROCm; for a patch that the tables lack, the nearest earlier one."""
        wanted = version(text) or ()
        found = [
            it
            for it in self.rocms
            if minor(it.rocm) == minor(text) and (version(it.rocm) or ()) <= wanted
        ]
        return max(found, key=lambda it: version(it.rocm) or (), default=None)


def version(text: str) -> Version | None:
    """The numbers of a version; None where it has none.

    >>> version("550.54.15"), version("13.0"), version("6.0 DP"), version("none")
    ((550, 54, 15), (13,), (6,), None)
    """
    numbers: list[int] = []
    for part in text.strip().removeprefix("R").split(" ", 1)[0].split("."):
        if not (part.isascii() and part.isdigit()):
            return None
        numbers.append(int(part))
    while len(numbers) > 1 and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def dotted(parts: Version | None) -> str:
    """A version as it is written; empty for none.

    >>> dotted((13,)), dotted((12, 4))
    ('13.0', '12.4')
    """
    if not parts:
        return ""
    return ".".join(str(part) for part in (parts if len(parts) > 1 else (*parts, 0)))


def minor(text: str) -> Version | None:
    """Major and minor alone.

    >>> minor("12.0.1"), minor("12.4.1")
    ((12,), (12, 4))
    """
    return version(".".join(text.split(".")[:2]))
