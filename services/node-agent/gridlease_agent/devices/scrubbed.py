"""What the core asks of whoever can wipe devices, and what it is answered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Scrubbed:
    """What came of a scrub: ``method`` = how it was verified; ``trouble`` = why it was not."""

    method: str = ""
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Measured:
    """What a device did: 10^9 operations and 10^6 bytes a second; ``trouble``: why it was not
    measured."""

    gflops: int = 0
    memory_mbps: int = 0
    correct: bool = False
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class DeviceFault:
    """What the kernel said that condemns a device."""

    device_id: str
    code: str
    words: str


class DeviceKeeping(Protocol):
    """``keeper.DeviceKeeper``, which needs root; or a node whose devices are not there."""

    def lacks(self) -> Mapping[str, str]:
        """Devices that cannot be wiped here, and why."""
        ...

    def scrub(self, device_id: str) -> Scrubbed:
        """Wipe one; blocks for as long as it takes, at most some minutes."""
        ...

    def faults(self) -> tuple[DeviceFault, ...]:
        """What the kernel has said since the last look."""
        ...

    def certify(self, device_id: str) -> Measured:
        """Measure one that nobody is on; blocks for some seconds."""
        ...


class NothingKept:
    """A node whose devices are not there (``emulated``: they hold nothing), or that wipes none."""

    def __init__(self, devices: tuple[str, ...] = (), *, emulated: bool) -> None:
        self._devices = devices
        self._emulated = emulated

    def lacks(self) -> Mapping[str, str]:
        if self._emulated:
            return {}
        return dict.fromkeys(self._devices, "this node runs without the right to wipe devices")

    def scrub(self, device_id: str) -> Scrubbed:
        del device_id
        if self._emulated:
            return Scrubbed("emulated")
        return Scrubbed(trouble="this node runs without the right to wipe devices")

    def faults(self) -> tuple[DeviceFault, ...]:
        return ()

    def certify(self, device_id: str) -> Measured:
        del device_id
        return Measured(trouble="there is nothing to measure")
