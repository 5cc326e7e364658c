"""What needs root about devices: wipes them, and hears what the kernel says of them.

Synchronous, with plain values in and out, so that it can stand on the other side of a socket.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping

from gridlease_agent.devices.measuring import CudaMeter
from gridlease_agent.devices.place import CUDA, NVML, Place
from gridlease_agent.devices.scrubbed import DeviceFault, Measured, Scrubbed
from gridlease_agent.devices.wiping import CudaScrubber, Scrubber, scrubber_of
from gridlease_agent.domain.health import kernel_fault
from gridlease_agent.runtimes.devices import DeviceTable

_KERNEL_LOG = "/dev/kmsg"
_LINES = 10_000  # of the kernel's log, looked at in one go


class DeviceKeeper:
    """The devices of one host."""

    def __init__(
        self,
        table: DeviceTable,
        cuda: CudaScrubber | None = None,
        kernel_log: str = _KERNEL_LOG,
        meter: CudaMeter | None = None,
    ) -> None:
        families = {(family.kind, family.family): family for family in table.families}
        cuda = cuda or CudaScrubber()
        self._devices = {device.id: device for device in table.devices}
        self._scrubbers: dict[str, Scrubber | None] = {
            device.id: scrubber_of(
                families[device.kind, device.family].scrub, table.root, table.hooks, cuda
            )
            for device in table.devices
        }
        self._meter = meter or CudaMeter()
        self._ways = {x.id: families[x.kind, x.family].scrub.get("by", "") for x in table.devices}
        self._buses = {_short_bus(x.bus): x.id for x in table.devices if x.bus}
        self._log = -1
        with contextlib.suppress(OSError):
            self._log = os.open(kernel_log, os.O_RDONLY | os.O_NONBLOCK)

    def lacks(self) -> Mapping[str, str]:
        """Devices that this node cannot wipe, and why."""
        found = {}
        for device_id, scrubber in self._scrubbers.items():
            why = "nothing is known that wipes it" if scrubber is None else scrubber.lacks()
            if self._devices[device_id].divided:
                why = "it is divided (MIG mode); its instances are lent in its place"
            if why:
                found[device_id] = why
        return found

    def scrub(self, device_id: str) -> Scrubbed:
        """Wipe one device. Blocks for as long as that takes, at most some minutes."""
        device, scrubber = self._devices.get(device_id), self._scrubbers.get(device_id)
        if device is None or scrubber is None:
            return Scrubbed(trouble="nothing is known that wipes it")
        answer = scrubber.scrub(device)
        if answer.method and device.emulated:
            return Scrubbed(f"emulated-{answer.method}")
        return answer

    def certify(self, device_id: str) -> Measured:
        """Measure one that nobody is on: those of CUDA, by CUDA."""
        device = self._devices.get(device_id)
        if device is None or self._ways.get(device_id) != "cuda":
            return Measured(trouble="nothing is known that measures it")
        return self._meter.measure(device)

    def faults(self) -> tuple[DeviceFault, ...]:
        """What the kernel has said since the last look that condemns one of them."""
        found = []
        for line in self._lines():
            fault = kernel_fault(line)
            device_id = self._buses.get(_short_bus(fault[0])) if fault else None
            if fault is not None and device_id is not None:
                found.append(DeviceFault(device_id, fault[1], fault[2]))
        return tuple(found)

    def _lines(self) -> list[str]:
        lines: list[str] = []
        while self._log >= 0 and len(lines) < _LINES:
            try:
                read = os.read(self._log, 8192)
            except BlockingIOError:
                break
            except BrokenPipeError:  # the log ran over us; the next read is where it goes on
                continue
            except OSError:
                break
            if not read:
                break
            lines += read.decode("utf-8", "replace").splitlines()
        return lines

    def close(self) -> None:
        """Let the kernel's log go."""
        if self._log >= 0:
            os.close(self._log)
            self._log = -1


def keeper_at(place: Place, table: DeviceTable) -> DeviceKeeper:
    """By the libraries at ``place``."""
    cuda = place.library(CUDA)
    scrubber = CudaScrubber(cuda, place.library(NVML))
    return DeviceKeeper(table, scrubber, meter=CudaMeter(cuda))


def _short_bus(bus: str) -> str:
    """Without the function, in lower case, the domain four digits long: as the kernel writes it.

    >>> _short_bus("00000000:01:00.0")
    '0000:01:00'
    """
    domain, _, rest = bus.lower().partition(":")
    return f"{domain[-4:]}:{rest.partition('.')[0]}"
