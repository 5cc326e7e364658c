"""What pots give back: hour by hour the same as for all hours at once, to the atom."""

from gridlease_billing.commitments import _covers
from gridlease_billing.contract_ports import Using
from gridlease_billing.domain.commitment import HOUR_MS, HOUR_NS, Commitment, Use, match
from gridlease_kernel.money import amount_nano

RATE = 7_777_777_777


def test_hours_give_back_what_was_charged_for_all_of_them():
    pot = Commitment("c", "t", "H100", 1_000, 0, 3 * HOUR_MS, 1)
    use = Use("l", 1, "t", "H100", "", 333, 1_000, 2 * HOUR_NS + 7)
    given = taken = 0
    for hour_ms in range(0, 3 * HOUR_MS, HOUR_MS):
        matched = match([pot], [use], hour_ms, hour_ms + HOUR_MS)
        for it in _covers(matched, [Using(use, RATE, taken)]):
            given += it.cover_nano
            taken += it.drawn.milli_ns
    assert taken == use.span_ns * use.quantity_milli
    assert given == amount_nano(RATE, use.span_ns) == 15_555_555_554
