"""Which devices take no work, and why: what cannot be wiped, what the kernel or the device itself
says is broken, and what has said nothing of itself, or nothing that can be, for some minutes. Such
a doubt ends by itself. All go to the scheduler with the inventory, and nothing is placed there.

A fault stays, over restarts, until a certification under the same driver passes or an operator
removes ``ailments.json``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from gridlease.type.v1 import fleet_pb2
from gridlease_kernel.faults import Fault

from gridlease_agent.devices.scrubbed import DeviceKeeping
from gridlease_agent.domain.certificate import Certificate
from gridlease_agent.domain.health import Watched
from gridlease_agent.probes.facts import DeviceFacts

_LOG = logging.getLogger(__name__)
_EVERY_S = 5.0
_MOST_CHARS = 200


class Ailments:
    """One node's devices. ``scrubs``: what scrubbing says; ``watched``: what telemetry says."""

    def __init__(
        self,
        state: Path,
        keeper: DeviceKeeping,
        scrubs: Callable[[], Mapping[str, str]],
        tell: Callable[[], None],
    ) -> None:
        self._path = state / "ailments.json"
        self._keeper = keeper
        self._scrubs = scrubs
        self._tell = tell
        self._told: Mapping[str, str] = {}
        self.watched: Mapping[str, Watched] = {}
        self._faults: dict[str, str] = {}
        with contextlib.suppress(OSError, ValueError):
            found = json.loads(self._path.read_text("utf-8"))
            self._faults = {str(key): str(words) for key, words in found.items()}

    def now(self) -> Mapping[str, str]:
        """By device; a fault before a doubt, and both before what scrubbing says."""
        doubts = {key: f"suspect: {one.doubt}" for key, one in self.watched.items() if one.doubt}
        found = {**self._scrubs(), **doubts, **self._faults}
        return {key: words[:_MOST_CHARS] for key, words in found.items()}

    def judged(self, device_id: str, trouble: str) -> None:
        """It was measured anew: what is wrong, or its faults are over."""
        if trouble:
            self._note(device_id, "CERTIFICATION", trouble)
        elif self._faults.pop(device_id, None) is not None:
            self._keep()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(_EVERY_S)

    async def look(self) -> None:
        """Once: what the kernel and the devices say; tells if anything is new."""
        try:
            faults = await asyncio.to_thread(self._keeper.faults)
        except (Fault, OSError) as trouble:
            _LOG.warning("the kernel's log cannot be read: %s", trouble)
            faults = ()
        said = {one.device_id: (one.code, one.words) for one in faults}
        said |= {key: (one.fault, one.message) for key, one in self.watched.items() if one.fault}
        for device_id, (code, words) in said.items():
            self._note(device_id, code, words)
        now = self.now()
        if now != self._told:
            self._told = now
            self._tell()

    def _note(self, device_id: str, code: str, words: str) -> None:
        if device_id in self._faults:
            return
        self._faults[device_id] = f"{code.lower().replace('_', '-')}: {words}"
        _LOG.error("a device is ill: %s", words, extra={"device": device_id, "code": code})
        self._keep()

    def _keep(self) -> None:
        draft = self._path.with_suffix(".new")
        draft.write_text(json.dumps(self._faults, sort_keys=True), "utf-8")
        draft.replace(self._path)


def marked(
    record: fleet_pb2.NodeInventory,
    facts: tuple[DeviceFacts, ...],
    ailments: Mapping[str, str],
    certificates: Mapping[str, Certificate],
) -> fleet_pb2.NodeInventory:
    """The inventory with what ails its devices, whose parts they are and what they measured."""
    parents = {device.id: device.part_of for device in facts}
    for device in record.devices:
        device.part_of = parents.get(device.id, "")
        device.ailment = ailments.get(device.id, "")
        if device.ailment:
            device.state = fleet_pb2.DEVICE_STATE_DIRTY
        known = certificates.get(device.id)
        if known is not None:
            made = device.certification
            made.time.FromNanoseconds(known.at_ns)
            made.driver, made.gflops = known.driver, known.gflops
            made.memory_mbps, made.correct = known.memory_mbps, known.correct
            made.emulated = known.emulated
    return record
