"""What operators say of projects and tenants: how much each may hold, and what it weighs."""

from __future__ import annotations

from dataclasses import replace

from gridlease_kernel.faults import Invalid

from . import names
from .domain.chips import Catalogue
from .domain.job import Reason
from .domain.order.quota import shortcomings
from .domain.snapshot import Quota, Share
from .operators import QuotaRow
from .ports import Event, Store


class Quotas:
    """The use cases about quotas and shares."""

    def __init__(self, store: Store, catalogue: Catalogue) -> None:
        self._store = store
        self._catalogue = catalogue

    async def list(self, project: str) -> list[QuotaRow]:
        """Those of a project; empty = all."""
        async with self._store.reading() as tx:
            return await tx.capacity.quotas(project)

    async def set(self, quota: Quota) -> QuotaRow:
        """Write one, if all of them still make sense together.

        Raises:
            Invalid: UNKNOWN_CHIP, QUOTAS_CONTRADICT.
        """
        quota = replace(quota, chip=self._chip(quota.chip))
        async with self._store.writing() as tx:
            await tx.capacity.lock()
            before = {
                (x.quota.project, x.quota.chip): x.quota for x in await tx.capacity.quotas("")
            }
            wrong = shortcomings((before | {(quota.project, quota.chip): quota}).values())
            if wrong and wrong != shortcomings(before.values()):
                raise _contradiction(wrong[0])
            await tx.capacity.set_quota(quota)
            facts = {
                "chip": quota.chip,
                "guaranteed_milli": str(quota.guaranteed_milli),
                "limit_milli": str(quota.limit_milli),
                "parent": quota.parent,
            }
            project = quota.project if quota.project.startswith("projects/") else ""
            await tx.events.tell(Event("quota.set", quota.project, project, Reason(), facts))
            after = await tx.capacity.quotas(quota.project)
        return next((x for x in after if x.quota.chip == quota.chip), QuotaRow(quota, 0))

    async def shares(self) -> tuple[Share, ...]:
        """Every tenant's claim, with what it used lately, until now."""
        async with self._store.reading() as tx:
            return (await tx.planning.parts(self._catalogue)).shares

    async def set_share(self, tenant: str, weight: int) -> Share:
        """Write a tenant's weight."""
        names.check_tenant(tenant)
        async with self._store.writing() as tx:
            await tx.capacity.set_share(tenant, weight)
            facts = {"weight": str(weight)}
            await tx.events.tell(Event("share.set", tenant, "", Reason(), facts))
        return next(x for x in await self.shares() if x.tenant == tenant)

    def _chip(self, name: str) -> str:
        """The catalogue's own spelling.

        Raises:
            Invalid: UNKNOWN_CHIP.
        """
        if not name:
            return ""
        chip = self._catalogue.find(name)
        if chip is None:
            unknown = self._catalogue.unknown([name])
            near = ", ".join(unknown.nearest) if unknown is not None else ""
            raise Invalid(
                f"No chip is called {name!r}; a quota names a chip, not a family.",
                reason="UNKNOWN_CHIP",
                field="quota.chip",
                remedy=f"Nearest: {near}." if near else "List the offers for the names of chips.",
            )
        return chip.name


def _contradiction(words: str) -> Invalid:
    return Invalid(
        words,
        reason="QUOTAS_CONTRADICT",
        field="quota",
        remedy="List the quotas, and change the others first.",
    )
