"""What this node's devices were measured to do: kept on disk, done anew under another driver.

A device is measured in quarantine, before its scrub: nobody is on it, and what the measuring leaves
is wiped with the rest.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from gridlease_kernel.clock import Clock
from gridlease_kernel.faults import Fault

from gridlease_agent.devices.scrubbed import DeviceKeeping
from gridlease_agent.domain.certificate import Certificate, drifted, due
from gridlease_agent.probes.facts import DeviceFacts

_LOG = logging.getLogger(__name__)


class Certificates:
    """``judge``: told of each measurement, with what is wrong ("" = it is well)."""

    def __init__(
        self,
        state: Path,
        devices: tuple[DeviceFacts, ...],
        keeper: DeviceKeeping,
        clock: Clock,
        judge: Callable[[str, str], None],
    ) -> None:
        self._path = state / "certificates.json"
        self._devices = {device.id: device for device in devices}
        self._keeper = keeper
        self._clock = clock
        self._judge = judge
        self._known: dict[str, Certificate] = {}
        self._tried: set[str] = set()
        with contextlib.suppress(OSError, ValueError, TypeError):
            found = json.loads(self._path.read_text("utf-8"))
            self._known = {key: Certificate(**one) for key, one in found.items()}

    def now(self) -> Mapping[str, Certificate]:
        """By device."""
        return {key: one for key, one in self._known.items() if key in self._devices}

    def due(self) -> frozenset[str]:
        """Devices measured once, and under another driver than the one of now."""
        return frozenset(
            key
            for key, device in self._devices.items()
            if key in self._known and due(self._known[key], device.driver)
        )

    async def measure(self, device_id: str) -> None:
        """Measure it if that is due. What cannot be measured here is tried once a start."""
        device, before = self._devices.get(device_id), self._known.get(device_id)
        if device is None or device_id in self._tried or not due(before, device.driver):
            return
        self._tried.add(device_id)
        try:
            found = await asyncio.to_thread(self._keeper.certify, device_id)
        except (Fault, OSError) as trouble:
            _LOG.warning("a device was not measured: %s", trouble, extra={"device": device_id})
            return
        if found.trouble:
            _LOG.info("a device was not measured: %s", found.trouble, extra={"device": device_id})
            return
        at_ns = round(self._clock.wall().timestamp() * 1e9)
        after = Certificate(
            device.driver, found.gflops, found.memory_mbps, found.correct, at_ns, device.emulated
        )
        self._known[device_id] = after
        self._keep()
        self._judge(device_id, drifted(before, after))
        _LOG.info("a device was measured", extra={"device": device_id, "gflops": found.gflops})

    def _keep(self) -> None:
        draft = self._path.with_suffix(".new")
        text = {key: dataclasses.asdict(one) for key, one in self._known.items()}
        draft.write_text(json.dumps(text, sort_keys=True), "utf-8")
        draft.replace(self._path)
