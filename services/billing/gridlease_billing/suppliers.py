"""Partners whose nodes are rented out here: their terms, nodes, releases, statements, payouts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from gridlease_kernel.faults import Invalid, Missing, Precondition

from gridlease_billing.credit import reused
from gridlease_billing.domain.statement import Earned, Moved, Partner, Place, Statement
from gridlease_billing.ports import Books, Work
from gridlease_billing.supplier_ports import Held, NewContract, Payout

RELEASE_BATCH = 1_000  # lines at a time
LARGEST_PAGE = 5_000  # lines and moves of a statement


async def create_supplier(books: Books, name: str, display_name: str) -> Partner:
    """Names a partner, once; its name for people stays as it was first."""

    async def work(tx: Work) -> Partner:
        now = await tx.now()
        await tx.suppliers.create(name, display_name, now.ms)
        return await _partner(tx, name)

    return await books.run(work)


async def list_suppliers(books: Books) -> list[Partner]:
    """Partners with their terms now and what they are owed."""

    async def work(tx: Work) -> list[Partner]:
        return await tx.suppliers.partners()

    return await books.run(work)


async def create_contract(books: Books, new: NewContract) -> Partner:
    """New terms, for leases that are authorised from now on.

    Raises:
        Missing: SUPPLIER_NOT_FOUND.
        Invalid: REQUEST_ID_REUSED.
    """

    async def work(tx: Work) -> Partner:
        await _partner(tx, new.supplier)
        await tx.suppliers.lock(new.supplier)
        before = await tx.suppliers.find_contract(new.request_id)
        if before is None:
            now = await tx.now()
            await tx.suppliers.add_contract(new, now.ms)
        elif not new.made(before):
            raise reused("another contract")
        return await _partner(tx, new.supplier)

    return await books.run(work)


async def assign_node(books: Books, node: str, supplier: str, request_id: str) -> None:
    """Says whose a node is, for leases authorised from now on; ``supplier`` "" = the platform's.

    Raises:
        Missing: SUPPLIER_NOT_FOUND.
        Precondition: NO_CONTRACT.
        Invalid: REQUEST_ID_REUSED.
    """

    async def work(tx: Work) -> None:
        if supplier and (await _partner(tx, supplier)).contract is None:
            raise Precondition(
                f"{supplier} has no contract yet.",
                reason="NO_CONTRACT",
                field="supplier",
                remedy="Give it terms first: gridlease suppliers contract.",
            )
        before = await tx.suppliers.find_owner(request_id)
        if before is None:
            now = await tx.now()
            await tx.suppliers.assign(node, supplier, request_id, now.ms)
        elif before != (node, supplier):
            raise reused("another node")

    await books.run(work)


async def release_held(books: Books, limit: int = RELEASE_BATCH) -> int:
    """Makes payable what was kept back long enough, at most ``limit`` lines; how many."""

    async def work(tx: Work) -> int:
        now = await tx.now()
        if now.suspect:
            return 0
        by_owner: dict[str, list[Held]] = {}
        for it in await tx.suppliers.held(now.ms, limit):
            by_owner.setdefault(it.contract.supplier, []).append(it)
        for supplier, held in sorted(by_owner.items()):
            await tx.suppliers.lock(supplier)
            total = sum(it.held_nano for it in held)
            terms = held[0].contract
            sides = {terms.holdback_account: -total, terms.payable_account: total}
            journal = await tx.ledger.journal("holdback", None, supplier, sides, now.ms)
            await tx.suppliers.released(held, journal, now.ms)
        return sum(len(it) for it in by_owner.values())

    return await books.run(work)


async def pay_out(books: Books, payout: Payout) -> tuple[int, Partner]:
    """Pays a partner what it is owed, or a part of it, once for each request id; how much.

    Raises:
        Missing: SUPPLIER_NOT_FOUND.
        Precondition: NOTHING_OWED; PAYOUT_TOO_LARGE.
        Invalid: REQUEST_ID_REUSED.
    """
    key = f"payout/{payout.request_id}"

    async def work(tx: Work) -> tuple[int, Partner]:
        await tx.suppliers.lock(payout.supplier)
        before = await tx.suppliers.paid(key)
        partner = await _partner(tx, payout.supplier)
        if before is not None:
            if before[0] != payout.supplier or payout.amount_nano not in (0, before[1]):
                raise reused("another payout")
            return before[1], partner
        amount = payout.amount_nano or partner.payable_nano
        _check_payout(partner, amount)
        now = await tx.now()
        sides = {
            partner.payable_account: -amount,
            await tx.ledger.platform("cash"): amount,
        }
        await tx.ledger.journal("payout", key, payout.note or payout.supplier, sides, now.ms)
        return amount, await _partner(tx, payout.supplier)

    return await books.run(work)


async def statement(books: Books, name: str, from_ms: int, until_ms: int | None) -> Statement:
    """All of what a partner's nodes earned in ``[from_ms, until_ms)``; None = until now.

    Raises:
        Missing: SUPPLIER_NOT_FOUND.
        Invalid: PERIOD_EMPTY.
    """
    page = await statement_page(books, name, from_ms, until_ms, None, LARGEST_PAGE)
    lines, moves = list(page.lines), list(page.moves)
    while page.next_place is not None:
        page = await statement_page(
            books, name, from_ms, page.until_ms, page.next_place, LARGEST_PAGE
        )
        lines += page.lines
        moves += page.moves
    return replace(page, lines=tuple(lines), moves=tuple(moves), first=True)


async def statement_page(
    books: Books,
    name: str,
    from_ms: int,
    until_ms: int | None,
    place: Place | None,
    limit: int,
) -> Statement:
    """A page of it, from a place on: its lines first, then all else that moved what is owed.

    Raises:
        Missing: SUPPLIER_NOT_FOUND.
        Invalid: PERIOD_EMPTY.
    """

    async def work(tx: Work) -> Statement:
        partner = await _partner(tx, name)
        end_ms = place.until_ms if place else until_ms or (await tx.now()).ms + 1
        if end_ms <= from_ms:
            raise Invalid(
                "The period ends before it begins.",
                reason="PERIOD_EMPTY",
                field="end_time",
                remedy="Name an end after the beginning.",
            )
        lines, moves, rest = await _rows(tx, partner, from_ms, place or Place(end_ms), limit)
        opening = await tx.suppliers.sums(partner, from_ms)
        closing = await tx.suppliers.sums(partner, end_ms)
        moved = await tx.suppliers.moved(partner, from_ms, end_ms)
        return Statement(
            partner,
            from_ms,
            end_ms,
            opening,
            (closing[0] - opening[0] - moved[0], closing[1] - opening[1] - moved[1]),
            closing,
            tuple(lines),
            tuple(moves),
            moved,
            await tx.suppliers.totals(name, from_ms, end_ms),
            place is None,
            rest,
        )

    return await books.run(work)


async def _rows(
    tx: Work, partner: Partner, from_ms: int, place: Place, limit: int
) -> tuple[Sequence[Earned], Sequence[Moved], Place | None]:
    """Lines and moves of a page, and where the next begins."""
    lines: Sequence[Earned] = ()
    end_ms = place.until_ms
    if place.line is not None:
        lines = await tx.suppliers.lines(partner.name, from_ms, end_ms, place.line, limit + 1)
        if len(lines) > limit:
            return lines[:limit], (), Place(end_ms, lines[limit - 1].key)
    room = limit - len(lines)
    moves = await tx.suppliers.moves(partner, from_ms, end_ms, place.move, room + 1)
    if len(moves) > room:
        last = moves[room - 1].key if room else place.move
        return lines, moves[:room], Place(end_ms, None, last)
    return lines, moves, None


async def _partner(tx: Work, name: str) -> Partner:
    found = await tx.suppliers.partners(name) if name else []
    if not found:
        raise Missing(
            f"There is no {name}.",
            reason="SUPPLIER_NOT_FOUND",
            field="supplier",
            remedy="List the suppliers to see their names.",
        )
    return found[0]


def _check_payout(partner: Partner, amount_nano: int) -> None:
    if partner.payable_nano <= 0:
        raise Precondition(
            f"{partner.name} is owed nothing that is payable.",
            reason="NOTHING_OWED",
            field="supplier",
            remedy="What is kept back becomes payable when its days have passed.",
        )
    if amount_nano > partner.payable_nano:
        raise Precondition(
            f"{partner.name} is owed less than that.",
            reason="PAYOUT_TOO_LARGE",
            field="amount_nano",
            remedy="Pay at most what is payable, or name no amount to pay all of it.",
            metadata={"payable_nano": str(partner.payable_nano)},
        )
