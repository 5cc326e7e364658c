"""Legal entities, tax profiles and the tax table: written for invoices to come, never edited."""

from __future__ import annotations

from dataclasses import replace

from gridlease_kernel.faults import Conflict, Invalid, Precondition

from gridlease_billing.domain.issuer import LegalEntity, TaxProfile, TaxSource
from gridlease_billing.ports import Books, Work


async def set_entity(books: Books, entity: LegalEntity) -> LegalEntity:
    """A legal entity as it now is.

    Raises:
        Conflict: PREFIX_TAKEN by another entity.
    """

    async def work(tx: Work) -> LegalEntity:
        new = replace(entity, recorded_ms=(await tx.now()).ms)
        known = await tx.taxes.entity(entity.entity)
        if known is not None and replace(known, recorded_ms=new.recorded_ms) == new:
            return known
        if not await tx.taxes.put_entity(new):
            raise Conflict(
                f"Another legal entity's numbers begin with {entity.prefix}.",
                reason="PREFIX_TAKEN",
                field="entity.prefix",
                remedy="Choose one of its own: numbers must be told apart.",
            )
        return new

    return await books.run(work)


async def list_entities(books: Books) -> list[LegalEntity]:
    """Each as it now is."""

    async def work(tx: Work) -> list[LegalEntity]:
        return await tx.taxes.entities()

    return await books.run(work)


async def set_profile(books: Books, profile: TaxProfile) -> TaxProfile:
    """A tenant's tax profile as it now is.

    Raises:
        Precondition: NO_LEGAL_ENTITY of that name.
    """

    async def work(tx: Work) -> TaxProfile:
        if await tx.taxes.entity(profile.entity) is None:
            raise Precondition(
                f"There is no legal entity {profile.entity}.",
                reason="NO_LEGAL_ENTITY",
                field="profile.entity",
                remedy="Write it first, or leave it empty for the default.",
            )
        new = replace(profile, recorded_ms=(await tx.now()).ms)
        known = await tx.taxes.profile(profile.tenant)
        if known is not None and replace(known, recorded_ms=new.recorded_ms) == new:
            return known
        await tx.taxes.put_profile(new)
        return new

    return await books.run(work)


async def get_profile(books: Books, tenant: str) -> TaxProfile:
    """A tenant's tax profile; the default's where none was written."""

    async def work(tx: Work) -> TaxProfile:
        return await tx.taxes.profile(tenant) or TaxProfile(tenant)

    return await books.run(work, tenant=tenant)


async def add_rate(books: Books, new: TaxSource) -> TaxSource:
    """A new entry of the tax table.

    Raises:
        Invalid: TAX_RATE_EXISTS, another one of that country from that time; TAX_RATE_IN_THE_PAST
            where documents may have been issued at the rate that it would replace.
    """

    async def work(tx: Work) -> TaxSource:
        now_ms = (await tx.now()).ms
        known = await tx.taxes.rates()
        if new in known:
            return new
        before = [it for it in known if it.rate.country == new.rate.country]
        if all(it.rate.effective_ms != new.rate.effective_ms for it in before) and any(
            max(it.rate.effective_ms, new.rate.effective_ms) <= now_ms for it in before
        ):
            raise Invalid(
                f"Documents may bear the rate of {new.rate.country} that this one would replace.",
                reason="TAX_RATE_IN_THE_PAST",
                field="rate.effective_time",
                remedy="Name a time that is still to come; credit notes mend what was issued.",
            )
        if not await tx.taxes.put_rate(new, now_ms) and new not in await tx.taxes.rates():
            raise Invalid(
                f"{new.rate.country} has another rate from that time.",
                reason="TAX_RATE_EXISTS",
                field="rate.effective_time",
                remedy="The table is never edited: name the time from which a new rate holds.",
            )
        return new

    return await books.run(work)


async def list_rates(books: Books) -> list[TaxSource]:
    """The tax table, by country and time."""

    async def work(tx: Work) -> list[TaxSource]:
        return await tx.taxes.rates()

    return await books.run(work)
