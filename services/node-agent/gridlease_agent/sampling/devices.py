"""Readings of accelerators: NVIDIA's from its library, the others' from their families' files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from gridlease_mesh.telemetry_sample import DeviceReadings, Quality

from gridlease_agent.devices import listing
from gridlease_agent.devices.family import Family
from gridlease_agent.devices.nvml import Nvml
from gridlease_agent.domain.health import Vitals, Watched, judged
from gridlease_agent.probes.facts import DeviceFacts
from gridlease_agent.sampling.cell import ABSENT, Cell, columns, derived, measured

_WIDTH = 7

Look = Callable[[DeviceFacts], Vitals]


def by_nvml(nvml: Nvml) -> Look:
    """Vitals by NVIDIA's library."""

    def look(device: DeviceFacts) -> Vitals:
        said = nvml.sample(device.index, device.id if device.part_of else "")
        busy = said.utilisation_percent
        return Vitals(
            utilisation_milli=None if busy is None else busy * 10,
            memory_used_bytes=said.memory_used_bytes,
            power_mw=said.power_mw,
            temperature_milli_c=None if said.temperature_c is None else said.temperature_c * 1000,
            energy_mj=said.energy_mj,
            ecc_uncorrected=said.ecc_uncorrected,
        )

    return look


def by_files(family: Family, root: Path) -> Look:
    """Vitals by a family's own table of readings."""

    def look(device: DeviceFacts) -> Vitals:
        place = _place(family, root, device)

        def number(name: str) -> int | None:
            text = listing.first(family.telemetry.get(name, ()), root, place)
            return int(text) if text.lstrip("-").isdigit() else None

        permille, percent = number("utilisation_permille"), number("utilisation_percent")
        power_uw, energy_uj = number("power_uw"), number("energy_uj")
        mv, ma = number("power_uw_mv"), number("power_uw_ma")
        if power_uw is None and mv is not None and ma is not None:
            power_uw = mv * ma
        return Vitals(
            utilisation_milli=percent * 10 if percent is not None else permille,
            memory_used_bytes=number("memory_used_bytes"),
            power_mw=None if power_uw is None else power_uw // 1000,
            temperature_milli_c=number("temperature_mc"),
            energy_mj=None if energy_uj is None else energy_uj // 1000,
        )

    return look


def _place(family: Family, root: Path, device: DeviceFacts) -> Path:
    """The listed folder of the device: the one that names it by bus or number."""
    places = sorted(root.glob(family.listing.glob.lstrip("/")))
    for place in places:
        fields = family.listing.fields
        index = listing.first(fields.get("index", ()), root, place)
        bus = listing.first(fields.get("bus", ()), root, place)
        if (device.bus and bus == device.bus) or (not device.bus and index == str(device.index)):
            return place
    return places[0] if places else root


class DeviceSampler:
    """Reads devices and judges what they say against what they said before."""

    def __init__(self, devices: Sequence[DeviceFacts], look: Callable[[DeviceFacts], Look]) -> None:
        self._devices = [(device, look(device)) for device in devices]
        self.watched = {device.id: Watched() for device in devices}

    def read(self, now_ns: int) -> DeviceReadings:
        """One row a device, in the order given."""
        rows = []
        for device, look in self._devices:
            before = self.watched[device.id]
            after = judged(before, look(device), now_ns)
            self.watched[device.id] = after
            rows.append(_row(device, before, after))
        numbers, quality = columns(rows, _WIDTH)
        return DeviceReadings._make([*numbers, quality])


def _row(device: DeviceFacts, before: Watched, after: Watched) -> tuple[Cell, ...]:
    vitals, earlier = after.vitals, before.vitals
    cells = [
        _cell(vitals.utilisation_milli, earlier.utilisation_milli),
        _cell(vitals.memory_used_bytes, earlier.memory_used_bytes),
        _cell(vitals.power_mw, earlier.power_mw),
        _cell(vitals.temperature_milli_c, earlier.temperature_milli_c),
        measured(vitals.energy_mj) if vitals.energy_mj is not None else derived(after.energy_mj),
        ABSENT,
        ABSENT,
    ]
    if "utilisation" in after.suspect:
        cells[0] = cells[0]._replace(quality=Quality.SUSPECT)
    if "power" in after.suspect:
        cells[2] = cells[2]._replace(quality=Quality.SUSPECT)
    if device.emulated:
        cells = [
            cell if cell.quality is Quality.ABSENT else cell._replace(quality=Quality.EMULATED)
            for cell in cells
        ]
    return tuple(cells)


def _cell(now: int | None, before: int | None) -> Cell:
    """A reading; the last one, marked, where it was not to be had this time."""
    if now is not None:
        return measured(now)
    return ABSENT if before is None else Cell(before, Quality.STALE)
