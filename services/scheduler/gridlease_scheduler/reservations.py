"""Promises capacity for a time, checked against what there is and against all other promises."""

from __future__ import annotations

from dataclasses import replace

from gridlease_kernel.faults import Exists, Invalid, Missing, Precondition
from gridlease_kernel.ids import Ids

from . import names
from .domain.chips import Catalogue
from .domain.job import Reason
from .domain.order.reserve import Booked, Full, book
from .domain.snapshot import Reservation
from .domain.stock import stock
from .operators import ReservationRow
from .ports import Event, Store

_SUFFIX = 11  # "rs-" and 40 random bits


class Reservations:
    """The use cases about reservations."""

    def __init__(self, store: Store, catalogue: Catalogue, ids: Ids) -> None:
        self._store = store
        self._catalogue = catalogue
        self._ids = ids

    async def list(self, project: str) -> list[ReservationRow]:
        """Those that stand and have not ended; of one project, or of all."""
        async with self._store.reading() as tx:
            return await tx.capacity.reservations(project)

    async def create(self, wanted: Reservation, request_id: str) -> ReservationRow:
        """Promise it, if at no instant more would be promised than there is.

        Raises:
            Invalid: UNKNOWN_CHIP, BAD_WINDOW.
            Precondition: RESERVATION_DOES_NOT_FIT.
            Exists: REQUEST_ID_REUSED.
        """
        names.check_project(wanted.project)
        wanted = replace(wanted, chip=self._chip(wanted.chip))
        async with self._store.writing() as tx:
            await tx.capacity.lock()
            known = await tx.capacity.reservation_by_request(wanted.project, request_id)
            if known is not None:
                if replace(known.reservation, name="") != replace(wanted, name=""):
                    raise _reused(request_id, known.reservation.name)
                return known
            parts = await tx.planning.parts(self._catalogue)
            _check_window(wanted, parts.now_ms)
            match book(wanted, parts.reservations, stock(await tx.nodes.views())):
                case Full() as full:
                    raise _full(full)
                case Booked():
                    pass
            made = replace(wanted, name=f"reservations/{self._ids.new('rs')[:_SUFFIX]}")
            await tx.capacity.add_reservation(made, request_id)
            facts = {"chip": made.chip, "quantity_milli": str(made.quantity_milli)}
            event = Event("reservation.created", made.name, made.project, Reason(), facts)
            await tx.events.tell(event)
            row = await tx.capacity.reservation(made.name)
        assert row is not None
        return row

    async def cancel(self, name: str, project: str) -> ReservationRow:
        """Give it back; what runs under it goes on as ordinary work.

        Args:
            project: The caller's; empty = any.

        Raises:
            Missing: RESERVATION_NOT_FOUND, also for another project's.
        """
        async with self._store.writing() as tx:
            await tx.capacity.lock()
            row = await tx.capacity.reservation(name)
            if row is None or project not in ("", row.reservation.project):
                raise _missing(name)
            if row.cancelled_at is None:
                await tx.capacity.cancel_reservation(name)
                event = Event("reservation.cancelled", name, row.reservation.project)
                await tx.events.tell(event)
            after = await tx.capacity.reservation(name)
        assert after is not None
        return after

    def _chip(self, name: str) -> str:
        chip = self._catalogue.find(name)
        if chip is None:
            unknown = self._catalogue.unknown([name])
            near = ", ".join(unknown.nearest) if unknown is not None else ""
            raise Invalid(
                f"No chip is called {name!r}; a reservation names a chip, not a family.",
                reason="UNKNOWN_CHIP",
                field="reservation.chip",
                remedy=f"Nearest: {near}." if near else "List the offers for the names of chips.",
            )
        return chip.name


def _check_window(wanted: Reservation, now_ms: int) -> None:
    if not wanted.begins_ms < wanted.ends_ms or wanted.ends_ms <= now_ms:
        raise Invalid(
            "A reservation ends after it begins, and after now.",
            reason="BAD_WINDOW",
            field="reservation.end_time",
            remedy="Give a begin_time and a later end_time.",
        )


def _full(full: Full) -> Precondition:
    return Precondition(
        full.reason.message,
        reason="RESERVATION_DOES_NOT_FIT",
        field="reservation.quantity_milli",
        remedy=full.reason.hint or "Ask for less, or for another time.",
        metadata=dict(full.reason.evidence) | {"fits_at_ms": str(full.fits_at_ms)},
    )


def _reused(request_id: str, name: str) -> Exists:
    return Exists(
        f"The request id {request_id!r} made {name} from another body.",
        reason="REQUEST_ID_REUSED",
        field="request_id",
        remedy="Send the same body again, or a new request_id.",
        metadata={"reservation": name},
    )


def _missing(name: str) -> Missing:
    return Missing(
        f"There is no reservation {name!r}.",
        reason="RESERVATION_NOT_FOUND",
        field="name",
        remedy="List the reservations for their names.",
    )
