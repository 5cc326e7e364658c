"""Where devices are looked for: on this host, or below a root of stand-ins."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gridlease_agent.devices.family import Family, load
from gridlease_agent.devices.nvml import LIBRARY

HOST = Path("/")
NVML, CUDA = LIBRARY, "libcuda.so.1"


@dataclass(frozen=True, slots=True)
class Place:
    """``root``: another one than the host's has stand-ins, and its devices are *emulated*.

    ``families``: a folder of the operator's own family files; None = only those shipped.
    """

    root: Path = HOST
    families: Path | None = None

    @property
    def emulated(self) -> bool:
        """Whether what is found here is no real device."""
        return self.root != HOST

    def known(self) -> tuple[Family, ...]:
        """The families that are looked for.

        Raises:
            Invalid: BAD_FAMILY.
        """
        return load(own=self.families)

    def library(self, name: str) -> str:
        """A vendor's library: the host's by its name, a stand-in by its path."""
        return str(self.root / "usr/lib" / name) if self.emulated else name


def place_of(root: Path | None, families: Path | None) -> Place:
    """By the settings; None = this very host."""
    return Place(HOST if root is None else root.absolute(), families)
