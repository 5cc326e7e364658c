"""Takes in what a node is made of."""

from __future__ import annotations

from dataclasses import replace

from .domain.chips import Catalogue
from .ports import Event, InventoryReport, Store
from .sync import not_enrolled


class ReportInventory:
    """The use case: replaces what was known."""

    def __init__(self, store: Store, catalogue: Catalogue) -> None:
        self._store = store
        self._catalogue = catalogue

    async def __call__(self, node_id: str, inventory: InventoryReport) -> str:
        """The node's site.

        Raises:
            Precondition: NODE_NOT_ENROLLED.
        """
        inventory = self._named(inventory)
        async with self._store.writing() as tx:
            await tx.nodes.lock([node_id])
            before = await tx.nodes.detail(node_id)
            site = await tx.nodes.report(node_id, inventory)
            if site is None or before is None:
                raise not_enrolled(node_id)
            if before.row.inventory != inventory.facts or _chips_of(before.devices) != _chips_of(
                inventory.devices
            ):
                facts = {
                    "cpu_milli": str(inventory.cpu_milli),
                    "devices": str(len(inventory.devices)),
                    "unknown_chips": ",".join(self._unknown(inventory)),
                    "emulated": str(inventory.emulated).lower(),
                }
                await tx.events.tell(Event("node.inventory", f"nodes/{node_id}", facts=facts))
            ailed = {x.device_id: x.ailment for x in before.devices}
            for device in inventory.devices:
                if device.ailment != ailed.get(device.device_id, ""):
                    news = {"device": device.device_id, "ailment": device.ailment}
                    type_ = "device.ailing" if device.ailment else "device.well"
                    await tx.events.tell(Event(type_, f"nodes/{node_id}", facts=news))
        return site

    def _named(self, inventory: InventoryReport) -> InventoryReport:
        """Chips by the catalogue's own names: a node may know one by another."""
        devices = tuple(
            replace(x, chip=self._catalogue.canonical(x.chip)) for x in inventory.devices
        )
        return replace(inventory, devices=devices)

    def _unknown(self, inventory: InventoryReport) -> list[str]:
        """Chips that the catalogue lacks: they are listed, and can be asked for by vendor only."""
        chips = {device.chip for device in inventory.devices}
        return sorted(chip for chip in chips if self._catalogue.find(chip) is None)


def _chips_of(devices: tuple[object, ...]) -> set[tuple[str, str]]:
    return {(getattr(x, "device_id", ""), getattr(x, "chip", "")) for x in devices}
