"""May a project hold this much more, and what of that is only borrowed?

Limits are hard and nest: a holding counts in the project and in each of its ancestors, and none of
them may pass its limit at any instant (I7). Above its guarantee a project borrows what others leave
idle; a project with no guarantee borrows all that it holds. Projects without a parent are siblings
in the whole pool. The owner of a guarantee takes back what was borrowed from it, at its own class
or below, whatever the borrower's priority.

    Book(quotas, catalogue, running)        what is held now; grows within one plan
    book.admits(project, chip, milli)       -> Room | QuotaFull
    book.hold(project, chip, milli)         after a placement
    borrowed(book, running)                 jobs that stand above their project's guarantee
    reclaimable(book, running, project, chip, milli)    jobs that this project may evict as owner
    shortcomings(quotas)                    what is wrong with a set of quotas, in words
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from gridlease_scheduler.domain.chips import CPU_VENDOR, Catalogue
from gridlease_scheduler.domain.job import Reason, Tier
from gridlease_scheduler.domain.snapshot import Quota, Running

_RANK = {Tier.SPOT: 0, Tier.ON_DEMAND: 1, Tier.RESERVED: 2}


@dataclass(frozen=True, slots=True)
class Room:
    """It may. ``borrows_milli`` of the project's holding would then be borrowed."""

    borrows_milli: int = 0


@dataclass(frozen=True, slots=True)
class QuotaFull:
    """It may not. ``owed``: within its own guarantee, so that others' borrowing is in the way;
    ``short_milli`` of it must come free under ``project``, whose limit is reached."""

    project: str
    short_milli: int
    owed: bool
    reason: Reason


class Book:
    """Quotas as a tree, and what is held of each; mutable, for the length of one plan."""

    __slots__ = (
        "_accelerators",
        "_chains",
        "_counted",
        "_family",
        "_held",
        "_parents",
        "_rows",
        "version",
    )

    def __init__(
        self, quotas: Iterable[Quota], catalogue: Catalogue, running: Iterable[Running] = ()
    ) -> None:
        self._rows: dict[str, list[Quota]] = {}
        self._parents: dict[str, str] = {}
        for quota in quotas:
            self._rows.setdefault(quota.project, []).append(quota)
            if quota.parent:
                self._parents.setdefault(quota.project, quota.parent)
        self._family = {chip.name: chip.family.lower() for chip in catalogue.chips}
        self._accelerators = {x.name for x in catalogue.chips if x.vendor != CPU_VENDOR}
        self.version = 0  # counts up with each change of what is held
        self._chains: dict[tuple[str, str], tuple[Quota, ...]] = {}
        self._held: dict[tuple[str, str], int] = {}  # by project and chip, its own alone
        self._counted: dict[tuple[str, str], int] = {}  # by row of the quotas
        if self._rows:
            for lease in running:
                self.hold(lease.project, lease.allocation.chip, lease.allocation.quantity_milli)

    @property
    def rules(self) -> bool:
        """Are there any quotas at all?"""
        return bool(self._rows)

    def hold(self, project: str, chip: str, milli: int) -> None:
        """Counts a holding (or, below zero, its end) in the project and all its ancestors."""
        if not self._rows:
            return
        self.version += 1
        key = (project, chip)
        self._held[key] = self._held.get(key, 0) + milli
        for quota in self._chain(project, chip):
            key = (quota.project, quota.chip)
            self._counted[key] = self._counted.get(key, 0) + milli

    def admits(self, project: str, chip: str, milli: int) -> Room | QuotaFull:
        """May the project hold this much more of the chip?"""
        if not self._rows:
            return Room()
        for quota in self._chain(project, chip):
            held = self._held_of(quota)
            if quota.limit_milli and held + milli > quota.limit_milli:
                owed = self.is_owed(project, quota.project, chip, milli)
                return _full(project, quota, held, milli, owed=owed)
        excess = self.held(project, chip) + milli - self.guaranteed(project, chip)
        return Room(max(0, min(excess, self.held(project, chip) + milli)))

    def ever(self, project: str, chip: str, milli: int) -> bool:
        """Might the project hold so much, if it held nothing else?"""
        return not self._rows or all(
            not x.limit_milli or milli <= x.limit_milli for x in self._chain(project, chip)
        )

    def ancestry(self, project: str) -> tuple[str, ...]:
        """The project, its parent, and so on to the root. Loops end where they close."""
        chain = [project]
        while (parent := self._parents.get(chain[-1], "")) and parent not in chain:
            chain.append(parent)
        return tuple(chain)

    def guaranteed(self, project: str, chip: str) -> int:
        """What is the project's own of a chip, in thousandths; 0 = nothing."""
        quota = self._nearest(project, chip)
        return quota.guaranteed_milli if quota is not None else 0

    def held(self, project: str, chip: str) -> int:
        """What counts against the guarantee that holds for a chip."""
        quota = self._nearest(project, chip)
        return self._held.get((project, chip), 0) if quota is None else self._held_of(quota)

    def is_owed(self, project: str, top: str, chip: str, milli: int) -> bool:
        """Is this much more the project's own, and its ancestors' own, up to below ``top``?"""
        for each in self.ancestry(project):
            if each == top:
                break
            if self.held(each, chip) + milli > self.guaranteed(each, chip):
                return False
        return project != top

    def _chain(self, project: str, chip: str) -> tuple[Quota, ...]:
        """The rows that a holding of the chip counts in, the project's own first."""
        key = (project, chip)
        if key not in self._chains:
            self._chains[key] = tuple(
                quota
                for each in self.ancestry(project)
                for quota in self._rows.get(each, ())
                if self._covers(quota, chip)
            )
        return self._chains[key]

    def _nearest(self, project: str, chip: str) -> Quota | None:
        """The row whose guarantee holds: the chip's own before that of all accelerators."""
        rows = [x for x in self._rows.get(project, ()) if self._covers(x, chip)]
        rows = [x for x in rows if x.guaranteed_milli] or rows
        return max(rows, key=lambda x: bool(x.chip), default=None)

    def _covers(self, quota: Quota, chip: str) -> bool:
        if not quota.chip:
            return chip in self._accelerators
        wanted = quota.chip.lower()
        return wanted in (chip.lower(), self._family.get(chip, ""))

    def _held_of(self, quota: Quota) -> int:
        return self._counted.get((quota.project, quota.chip), 0)


def borrowed(book: Book, running: Iterable[Running]) -> frozenset[str]:
    """Jobs that a project holds above its guarantee: the lowest and newest ones.

    A job that stands on both sides of the line is borrowed as a whole.
    """
    found: set[str] = set()
    for (project, chip), jobs in _by_holder(running, lambda x: x.project).items():
        found |= _above(book, project, chip, jobs)
    return frozenset(found)


def reclaimable(
    book: Book, running: Iterable[Running], project: str, chip: str, milli: int, tier: Tier
) -> frozenset[str]:
    """Jobs that borrow what is this project's own: it may end them, whatever their priority.

    Empty unless the whole request is within the guarantees of the project and of its ancestors up
    to the one shared with the borrower. Reserved work is never ended, nor work of a higher class.
    """
    mine = book.ancestry(project)
    owed = {top: book.is_owed(project, top, chip, milli) for top in (*mine, "")}

    def branch(lease: Running) -> str:
        """The borrower's ancestor just below the one shared with the owner; empty = not owed."""
        below = lease.project
        for each in (*book.ancestry(lease.project), ""):
            if each in owed:
                return below if owed[each] and below != each else ""
            below = each
        return ""

    same = (x for x in running if x.allocation.chip == chip and x.project != project)
    found: set[str] = set()
    for (name, _), jobs in _by_holder(same, branch).items():
        if name:
            found |= _above(book, name, chip, jobs)
    rank = _RANK[tier]
    barred = {x.job for x in running if x.tier is Tier.RESERVED or _RANK[x.tier] > rank}
    return frozenset(found - barred)


def shortcomings(quotas: Iterable[Quota]) -> tuple[str, ...]:
    """What is wrong with a set of quotas; empty = nothing."""
    rows = tuple(quotas)
    by_key = {(x.project, x.chip): x for x in rows}
    parents = {x.project: x.parent for x in rows if x.parent}
    found: list[str] = []
    if len(by_key) != len(rows):
        found.append("A project has two quotas for one chip.")
    for project in sorted(parents):
        seen = [project]
        while (parent := parents.get(seen[-1], "")) and parent not in seen:
            seen.append(parent)
        if parent:
            found.append(f"{project} is its own ancestor.")
    sums: dict[tuple[str, str], int] = {}
    for row in rows:
        if row.limit_milli and row.guaranteed_milli > row.limit_milli:
            found.append(f"{row.project} is guaranteed more than its limit.")
        key = (row.parent, row.chip)
        sums[key] = sums.get(key, 0) + row.guaranteed_milli
    for key, total in sorted(sums.items()):
        above = by_key.get(key)
        most = max(above.limit_milli, above.guaranteed_milli) if above is not None else 0
        if most and total > most:
            found.append(f"{key[0]} cannot cover what its projects are guaranteed together.")
    return tuple(found)


def _by_holder(
    running: Iterable[Running], holder: Callable[[Running], str]
) -> dict[tuple[str, str], dict[str, list[Running]]]:
    """Leases by (holder, chip) and then by job."""
    found: dict[tuple[str, str], dict[str, list[Running]]] = {}
    for lease in running:
        jobs = found.setdefault((holder(lease), lease.allocation.chip), {})
        jobs.setdefault(lease.job, []).append(lease)
    return found


def _above(book: Book, holder: str, chip: str, jobs: dict[str, list[Running]]) -> set[str]:
    """Those of a holder's jobs on a chip that reach above its guarantee."""
    sums = {job: sum(x.allocation.quantity_milli for x in ls) for job, ls in jobs.items()}
    # A guarantee for all accelerators is used up by the holder's other chips as well.
    elsewhere = max(0, book.held(holder, chip) - sum(sums.values()))
    own = book.guaranteed(holder, chip) - elsewhere
    order = sorted(
        jobs.items(),
        key=lambda x: (-_RANK[x[1][0].tier], -x[1][0].priority, x[1][0].started_ms, x[0]),
    )
    found: set[str] = set()
    total = 0
    for job, _ in order:
        total += sums[job]
        if total > own:
            found.add(job)
    return found


def _full(project: str, quota: Quota, held: int, milli: int, *, owed: bool) -> QuotaFull:
    """The refusal, in words and figures."""
    what = quota.chip or "accelerators"
    limit, short = quota.limit_milli, held + milli - quota.limit_milli
    message = (
        f"{quota.project} may hold {_count(limit)} {what} at once and holds {_count(held)}; "
        f"this job asks for {_count(milli)}."
    )
    if milli > limit:
        hint = f"Ask for at most {_count(limit)}, or have the limit of {quota.project} raised."
    elif owed:
        hint = "It is within the guarantee; what others borrow of it is being taken back."
    else:
        hint = (
            f"It is placed when {_count(short)} of them come free; or have the limit of "
            f"{quota.project} raised."
        )
    evidence = {
        "project": project,
        "quota_of": quota.project,
        "chip": quota.chip,
        "limit_milli": str(limit),
        "held_milli": str(held),
        "asked_milli": str(milli),
        "short_milli": str(short),
    }
    return QuotaFull(quota.project, short, owed, Reason("QUOTA_FULL", message, hint, evidence))


def _count(milli: int) -> str:
    """Devices, with what is left of a thousandth only where there is something."""
    return f"{milli / 1_000:g}"
