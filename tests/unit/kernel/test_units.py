"""Sizes, durations, money and counts as people write them."""

import pytest
from gridlease_kernel import units
from gridlease_kernel.faults import Invalid
from gridlease_kernel.units import Span

F = "field"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("512MB", 512 << 20),
        ("512MiB", 512 << 20),
        ("8G", 8 << 30),
        ("1.5gb", 3 << 29),
        ("64 KB", 64 << 10),
        ("100B", 100),
        ("2TB", 2 << 40),
        ("0.1GB", (1 << 30) // 10),
    ],
)
def test_sizes(text, value):
    assert units.parse_size(text, F) == value


@pytest.mark.parametrize("text", ["8", "", "-8GB", "8XB", "1e9GB", "9" * 14 + "PB", "GB", "1..2GB"])
def test_bad_sizes(text):
    with pytest.raises(Invalid) as caught:
        units.parse_size(text, F)
    assert (caught.value.reason, caught.value.field) == ("BAD_SIZE", F)
    assert "512MB" in caught.value.remedy


@pytest.mark.parametrize(
    ("text", "ms"),
    [("90s", 90_000), ("5m", 300_000), ("1h30m", 5_400_000), ("1d", 86_400_000), (45, 45_000),
     ("250ms", 250), ("1w", 604_800_000), ("0", 0)],
)  # fmt: skip
def test_durations(text, ms):
    assert units.parse_duration(text, F) == ms


@pytest.mark.parametrize("text", ["", "soon", "-5m", "5 parsecs", "5m!", "1.5h", "9" * 13 + "w"])
def test_bad_durations(text):
    with pytest.raises(Invalid) as caught:
        units.parse_duration(text, F)
    assert caught.value.reason == "BAD_DURATION"


@pytest.mark.parametrize(
    ("text", "nano"),
    [("1.50", 1_500_000_000), ("$2", 2_000_000_000), ("0.000000001 USD", 1), (3, 3_000_000_000)],
)
def test_money(text, nano):
    assert units.parse_money(text, F) == nano


@pytest.mark.parametrize("text", ["", "1,50", "-1", "1.0000000001", "1e3", "9999999999999", "١"])
def test_bad_money(text):
    with pytest.raises(Invalid) as caught:
        units.parse_money(text, F)
    assert caught.value.reason == "BAD_MONEY"


@pytest.mark.parametrize(("text", "milli"), [("4", 4_000), ("0.25", 250), ("250m", 250)])
def test_cores(text, milli):
    assert units.parse_cores(text, F) == milli


@pytest.mark.parametrize("text", ["", "four", "-1", "0.0001", "x86:4"])
def test_bad_cores(text):
    with pytest.raises(Invalid):
        units.parse_cores(text, F)


@pytest.mark.parametrize(
    ("text", "span"),
    [("8", Span(8, 8)), ("8..", Span(8)), ("4+", Span(4)), ("2..8", Span(2, 8)),
     ("..8", Span(1, 8)), (" 2 .. 8 ", Span(2, 8))],
)  # fmt: skip
def test_ranges(text, span):
    assert units.parse_range(text, F, units.parse_count, lowest=1) == span


@pytest.mark.parametrize("text", ["..", "8..2", "+", "2..x", "2..4..8"])
def test_bad_ranges(text):
    with pytest.raises(Invalid) as caught:
        units.parse_range(text, F, units.parse_count)
    assert caught.value.remedy
