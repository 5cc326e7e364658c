"""What operators say of sites: power, its price, its carbon, and the most that may be drawn."""

from __future__ import annotations

from .domain.job import Reason
from .domain.snapshot import Site
from .operators import SiteRow
from .ports import Event, Store


class Sites:
    """The use cases about sites."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def list(self) -> list[SiteRow]:
        """All, by name."""
        async with self._store.reading() as tx:
            return await tx.capacity.sites()

    async def set(self, site: Site) -> SiteRow:
        """Write one, whole; it is made where it is not known yet."""
        async with self._store.writing() as tx:
            await tx.capacity.lock()
            await tx.capacity.set_site(site)
            facts = {
                "pue_milli": str(site.pue_milli),
                "cap_watts": str(site.cap_watts),
                "racks": str(len(site.rack_cap_watts)),
            }
            await tx.events.tell(Event("site.set", f"sites/{site.name}", "", Reason(), facts))
            rows = await tx.capacity.sites()
        return next(x for x in rows if x.site.name == site.name)
