"""The executor's own record of devices that were given away and not verified clean since.

A core that was taken over could name a device that another lease is on, or that still holds what
the last one left. ``executor/given.json`` is root's: a device is in it from before a sandbox gets
it until a scrub of it is verified, whatever the core says. What cannot be read counts as given.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from gridlease_kernel.faults import Forbidden

from gridlease_agent import shim
from gridlease_agent.devices.scrubbed import DeviceFault, DeviceKeeping, Measured, Scrubbed
from gridlease_agent.probes.facts import DeviceFacts
from gridlease_agent.runtimes.states import Running, Starting

_LOG = logging.getLogger(__name__)
FOLDER, FILE = "executor", "given.json"
_UNKNOWN = "?"  # nobody knows whose it was


class DeviceRecord:
    """Of one node; safe to use from any thread."""

    def __init__(self, state: Path, devices: Collection[DeviceFacts]) -> None:
        (state / FOLDER).mkdir(parents=True, exist_ok=True, mode=0o700)
        self._path = state / FOLDER / FILE
        self._whole = {device.id: device.part_of for device in devices}
        self._lock = threading.Lock()
        self._busy: set[str] = set()  # being scrubbed or measured
        self._given = self._read()
        self._adopt(state / "leases")

    def _read(self) -> dict[str, str]:
        try:
            if not self._path.exists():
                return {}
            record = shim.read_json(str(self._path)) or {}
            given = {str(device): str(lease) for device, lease in record["given"].items()}
        except (OSError, ValueError, LookupError, AttributeError) as trouble:
            _LOG.error("%s cannot be read: every device counts as given: %s", self._path, trouble)
            return dict.fromkeys(self._whole, _UNKNOWN)
        return given

    def _adopt(self, leases: Path) -> None:
        """Leases that an agent without this record gave devices to."""
        before = dict(self._given)
        for folder in leases.iterdir() if leases.is_dir() else ():
            if not (folder / "spec.json").exists():
                continue
            held = (shim.read_json(str(folder / "held.json")) or {}).get("devices", ())
            for device in held:
                if device in self._whole:
                    self._given.setdefault(device, folder.name)
        if self._given != before:
            self._write(self._given)

    def take(self, lease_id: str, devices: Collection[str]) -> frozenset[str]:
        """These are the lease's from here on, durably; those that were not before.

        Raises:
            Forbidden: DEVICE_NOT_FREE; nothing was taken.
        """
        with self._lock:
            for device in devices:
                holder = self._holder(device)
                if holder is not None and holder != lease_id:
                    raise _not_free(device, holder)
            new = frozenset(devices) - self._given.keys()
            if new:
                self._write(self._given | dict.fromkeys(new, lease_id))
            return new

    def put_back(self, devices: Collection[str]) -> None:
        """The sandbox that they were just taken for was not made: they are as they were."""
        with self._lock:
            self._write({key: one for key, one in self._given.items() if key not in devices})

    def holder(self, device: str) -> str | None:
        """The lease that had it last, None where it is clean."""
        with self._lock:
            return self._given.get(device)

    def clean(self, device: str) -> None:
        """A scrub of it was verified."""
        with self._lock:
            if device in self._given:
                self._write({key: one for key, one in self._given.items() if key != device})

    @contextlib.contextmanager
    def busy(self, device: str) -> Iterator[None]:
        """While it is worked on nobody gets it."""
        with self._lock:
            if device in self._busy:
                raise _not_free(device, _UNKNOWN)
            self._busy.add(device)
        try:
            yield
        finally:
            with self._lock:
                self._busy.discard(device)

    def _holder(self, device: str) -> str | None:
        """Whoever is in the way of a device: on it, on the whole of it, or on a part of it."""
        for other in (*self._busy, *self._given):
            whole, of_other = self._whole.get(device), self._whole.get(other)
            if other == device or (whole and other == whole) or (of_other and device == of_other):
                return _UNKNOWN if other in self._busy else self._given[other]
        return None

    def _write(self, given: Mapping[str, str]) -> None:
        shim.write_json(str(self._path), {"given": dict(given)})
        self._given = dict(given)


class GuardedDevices:
    """Devices as the core may ask for their care: none that a living sandbox is on."""

    def __init__(self, keeper: DeviceKeeping, record: DeviceRecord, sandboxes: Any) -> None:
        self._keeper = keeper
        self._record = record
        self._sandboxes = sandboxes

    def lacks(self) -> Mapping[str, str]:
        return self._keeper.lacks()

    def faults(self) -> tuple[DeviceFault, ...]:
        return self._keeper.faults()

    def scrub(self, device_id: str) -> Scrubbed:
        """Wipe one that nobody is on; verified, it may be given again.

        Raises:
            Forbidden: DEVICE_NOT_FREE.
        """
        with self._record.busy(device_id):
            holder = self._user(device_id)
            if holder:
                return Scrubbed(trouble=f"lease {holder} still runs on it")
            answer = self._keeper.scrub(device_id)
            if answer.method and not answer.trouble:
                self._record.clean(device_id)
        return answer

    def certify(self, device_id: str) -> Measured:
        """Measure one that nobody is on.

        Raises:
            Forbidden: DEVICE_NOT_FREE.
        """
        with self._record.busy(device_id):
            holder = self._user(device_id)
            if holder:
                return Measured(trouble=f"lease {holder} still runs on it")
            return self._keeper.certify(device_id)

    def _user(self, device_id: str) -> str:
        """The lease whose sandbox lives on it; "" where none does."""
        holder = self._record.holder(device_id)
        if holder is None or holder == _UNKNOWN:
            return ""
        live = isinstance(self._sandboxes.inspect(holder), Starting | Running)
        return holder if live or self._sandboxes.alive([holder]) else ""


def _not_free(device: str, holder: str) -> Forbidden:
    whose = "is being worked on" if holder == _UNKNOWN else f"was lease {holder}'s"
    return Forbidden(
        f"Device {device} {whose} and has not been verified clean since.",
        reason="DEVICE_NOT_FREE",
        field="devices",
        remedy="Have it scrubbed first.",
    )
