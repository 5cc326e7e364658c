"""What is written is what is read, for any value; and no text makes a parser stumble."""

from collections.abc import Callable

import pytest
from gridlease_kernel import units
from gridlease_kernel.faults import Invalid
from gridlease_kernel.money import MAX_NANO, NANO
from gridlease_kernel.resources import VENDORS, AcceleratorAsk, parse_accelerator
from gridlease_kernel.units import Span
from hypothesis import given
from hypothesis import strategies as st

NAMES = st.from_regex(r"[A-Za-z][A-Za-z0-9-]{0,20}", fullmatch=True).filter(
    lambda name: name.lower() not in VENDORS
)
PARSERS: list[Callable[[str, str], object]] = [
    units.parse_size,
    units.parse_duration,
    units.parse_money,
    units.parse_cores,
    units.parse_count,
    parse_accelerator,
    lambda text, field: units.parse_range(text, field, units.parse_size),
]


@given(st.integers(0, 2**23 - 1), st.sampled_from(["KB", "MiB", "G", "tb"]))
def test_sizes_are_exact(number, unit):
    power = {"k": 10, "m": 20, "g": 30, "t": 40}[unit[0].lower()]
    assert units.parse_size(f"{number}{unit}", "f") == number << power


@given(st.integers(0, MAX_NANO))
def test_money_is_exact(nano):
    assert units.parse_money(f"{nano // NANO}.{nano % NANO:09d}", "f") == nano


@given(st.integers(0, 999), st.integers(0, 23), st.integers(0, 59), st.integers(0, 59))
def test_durations_add_up(days, hours, minutes, seconds):
    text = f"{days}d{hours}h{minutes}m{seconds}s"
    span_s = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    assert units.parse_duration(text, "f") == span_s * 1_000


@given(st.integers(1, 1_000), st.integers(0, 1_000))
def test_ranges_keep_their_ends(low, more):
    high = low + more
    assert units.parse_range(f"{low}..{high}", "f", units.parse_count) == Span(low, high)


@given(
    st.lists(NAMES, min_size=1, max_size=4),
    st.none() | st.sampled_from(sorted(VENDORS)),
    st.none() | st.integers(1, 512),
    st.integers(1, 1_024),
    st.randoms(use_true_random=False),
)
def test_accelerator_parts_stand_in_any_order(names, vendor, memory_gb, count, random):
    parts = [",".join(names), str(count)]
    parts += [vendor] if vendor else []
    parts += [f"{memory_gb}GB.."] if memory_gb else []
    random.shuffle(parts)
    memory = Span(memory_gb << 30) if memory_gb else None
    expected = AcceleratorAsk(tuple(names), vendor or "", memory, Span(count, count))
    assert parse_accelerator(":".join(parts)) == expected


@pytest.mark.parametrize("parse", PARSERS)
@given(text=st.text(max_size=40) | st.text("0123456789.+-:,GMKBsmhd x", max_size=20))
def test_any_text_is_read_or_refused(parse, text):
    refused: list[Invalid] = []
    try:
        parse(text, "f")
    except Invalid as fault:
        refused.append(fault)
    assert all(fault.field == "f" and fault.remedy for fault in refused)
