"""Capacity promised for a time: is there room for one more promise, and is it kept free?

A calendar is checked as a sum: at no instant may all reservations of a chip together exceed what
there is of it, nor those of one site what stands there. Which devices they are is decided when
their jobs are placed, and reserved work may put others out, so a sum is enough.

Once a window nears, what it needs is held back (``holds``): a job that might still run when the
window begins may start only on what the reservations leave.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from gridlease_scheduler.domain.job import Reason
from gridlease_scheduler.domain.snapshot import Pending, Reservation, Running
from gridlease_scheduler.domain.stock import Stock

HOLD_MS = 3_600_000  # so long before its window capacity is held back


@dataclass(frozen=True, slots=True)
class Booked:
    """It may be promised."""


@dataclass(frozen=True, slots=True)
class Full:
    """It may not. ``fits_at_ms``: when a window as long would fit; 0 = never."""

    fits_at_ms: int
    reason: Reason


@dataclass(frozen=True, slots=True)
class Open:
    """The job may start."""


@dataclass(frozen=True, slots=True)
class Held:
    """The job may not start now."""

    reason: Reason


def book(
    wanted: Reservation, calendar: Iterable[Reservation], stocks: Iterable[Stock]
) -> Booked | Full:
    """May this be promised besides everything that is?"""
    have = {x.site: x.total_milli for x in stocks if x.chip == wanted.chip and not x.emulated}
    others = [x for x in calendar if x.chip == wanted.chip and x.name != wanted.name]
    if _fits(wanted, others, have):
        return Booked()
    length = wanted.ends_ms - wanted.begins_ms
    begins = sorted({x.ends_ms for x in others if x.ends_ms > wanted.begins_ms})
    for at in begins:
        if _fits(_moved(wanted, at, length), others, have):
            message = f"There is no room for {_count(wanted)} in that window."
            hint = "Ask for the next window that has room, or for fewer."
            return Full(at, _reason("RESERVATION_FULL", message, hint, wanted, at))
    most = have.get(wanted.site, 0) if wanted.site else sum(have.values())
    message = (
        f"There are {most / 1_000:g} {wanted.chip} in all, not {wanted.quantity_milli / 1_000:g}."
    )
    return Full(0, _reason("RESERVATION_TOO_LARGE", message, "Ask for fewer.", wanted, 0))


def admits(
    task: Pending,
    milli: int,
    chip: str,
    calendar: Iterable[Reservation],
    running: Iterable[Running],
    now_ms: int,
) -> Open | Held:
    """May a job start within the reservation that it names?"""
    found = next((x for x in calendar if x.name == task.reservation), None)
    if found is None or found.project != task.project:
        message = f"Its project has no reservation {task.reservation}."
        reason = Reason("NO_SUCH_RESERVATION", message, "Name one of its own, or none.", {})
        return Held(reason)
    if chip != found.chip:
        words = f"The reservation {found.name} is for {found.chip}."
        hint = "Ask for that chip, or leave the reservation out."
        return Held(_reason("RESERVATION_OTHER_CHIP", words, hint, found, 0))
    if now_ms < found.begins_ms:
        words = f"The reservation {found.name} has not begun."
        hint = "It is placed when the window begins; or leave the reservation out."
        return Held(_reason("RESERVATION_NOT_BEGUN", words, hint, found, found.begins_ms))
    if now_ms >= found.ends_ms:
        words = f"The reservation {found.name} is over."
        return Held(_reason("RESERVATION_OVER", words, "Leave the reservation out.", found, 0))
    held = sum(x.allocation.quantity_milli for x in running if x.reservation == found.name)
    if held + milli > found.quantity_milli:
        words = f"The reservation {found.name} is used up: {held / 1_000:g} are held."
        hint = "It is placed when another of its jobs ends; or leave the reservation out."
        return Held(_reason("RESERVATION_USED_UP", words, hint, found, 0))
    return Open()


def _fits(wanted: Reservation, others: list[Reservation], have: dict[str, int]) -> bool:
    """At each instant of the window: no site over its own, and all together not over the total.

    Promises without a site can always be kept then, on what the others leave.
    """
    instants = {wanted.begins_ms} | {
        x.begins_ms for x in others if wanted.begins_ms < x.begins_ms < wanted.ends_ms
    }
    for at in instants:
        by_site: dict[str, int] = {wanted.site: wanted.quantity_milli}
        for each in others:
            if each.begins_ms <= at < each.ends_ms:
                by_site[each.site] = by_site.get(each.site, 0) + each.quantity_milli
        if sum(by_site.values()) > sum(have.values()):
            return False
        if any(site and milli > have.get(site, 0) for site, milli in by_site.items()):
            return False
    return True


def _moved(wanted: Reservation, begins_ms: int, length_ms: int) -> Reservation:
    return Reservation(
        wanted.name,
        wanted.project,
        wanted.chip,
        wanted.site,
        wanted.quantity_milli,
        begins_ms,
        begins_ms + length_ms,
    )


def _count(each: Reservation) -> str:
    return f"{each.quantity_milli / 1_000:g} {each.chip}"


def _reason(code: str, message: str, hint: str, each: Reservation, at_ms: int) -> Reason:
    evidence = {
        "reservation": each.name,
        "chip": each.chip,
        "quantity_milli": str(each.quantity_milli),
    }
    if at_ms:
        evidence["at_ms"] = str(at_ms)
    return Reason(code, message, hint, evidence)
