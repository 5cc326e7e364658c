"""Promises on a calendar, and what is held back for them."""

import pytest
from gridlease_scheduler.domain.order.reserve import (
    Booked,
    Full,
    Held,
    Open,
    admits,
    book,
)
from gridlease_scheduler.domain.snapshot import Reservation
from gridlease_scheduler.domain.stock import Stock

from tests.unit.scheduler.standing import A100, HOUR, MINUTE, runs, waits

NOW = 1_000 * HOUR
STOCK = [Stock(A100, "s1", False, 0, 16_000), Stock(A100, "s2", False, 0, 8_000)]


def wants(count, begins, ends, site="", name="r", project="projects/p"):
    return Reservation(name, project, A100, site, 1_000 * count, begins * HOUR, ends * HOUR)


def test_promises_are_checked_against_what_there_is():
    calendar = [wants(16, 10, 20, "s1", "a")]
    assert book(wants(8, 10, 20), calendar, STOCK) == Booked()
    assert book(wants(16, 20, 30, "s1"), calendar, STOCK) == Booked()
    full = book(wants(16, 15, 25, "s1"), calendar, STOCK)
    assert isinstance(full, Full)
    assert full.fits_at_ms == 20 * HOUR
    assert full.reason.code == "RESERVATION_FULL"


def test_promises_without_a_site_count_in_the_total():
    calendar = [wants(16, 10, 20, "", "a")]
    assert book(wants(8, 10, 20, "s2"), calendar, STOCK) == Booked()
    assert isinstance(book(wants(16, 10, 20, "s1"), calendar, STOCK), Full)


def test_what_is_not_there_is_never_promised():
    full = book(wants(25, 1, 2), [], STOCK)
    assert (full.fits_at_ms, full.reason.code) == (0, "RESERVATION_TOO_LARGE")
    emulated = [Stock(A100, "s1", True, 0, 64_000)]
    assert isinstance(book(wants(1, 1, 2), [], emulated), Full)


def test_peaks_within_the_window_count():
    calendar = [wants(16, 10, 12, "s1", "a"), wants(1, 14, 16, "s1", "b")]
    full = book(wants(16, 12, 18, "s1"), calendar, STOCK)
    assert full.fits_at_ms == 16 * HOUR


def window(count=4, name="r"):
    return Reservation(name, "projects/p", A100, "s1", 1_000 * count, NOW + 30 * MINUTE, NOW + HOUR)


@pytest.mark.parametrize(
    ("changes", "at", "code"),
    [
        ({"reservation": "x"}, NOW, "NO_SUCH_RESERVATION"),
        ({"project": "projects/q"}, NOW, "NO_SUCH_RESERVATION"),
        ({}, NOW, "RESERVATION_NOT_BEGUN"),
        ({}, NOW + HOUR, "RESERVATION_OVER"),
    ],
)
def test_a_reservation_admits_its_own_in_its_time(changes, at, code):
    task = waits(**({"reservation": "r"} | changes))
    answer = admits(task, 1_000, A100, [window()], (), at)
    assert isinstance(answer, Held)
    assert answer.reason.code == code
    assert answer.reason.hint


def test_a_reservation_admits_up_to_its_quantity():
    task, at = waits(reservation="r"), NOW + 30 * MINUTE
    own = runs("a", devices=("x", "y", "z"), reservation="r")
    assert admits(task, 1_000, A100, [window()], [own], at) == Open()
    used = admits(task, 2_000, A100, [window()], [own], at)
    assert used.reason.code == "RESERVATION_USED_UP"
    other = admits(task, 1_000, "H100-80GB", [window()], (), at)
    assert other.reason.code == "RESERVATION_OTHER_CHIP"
