"""The catalogue, and what a name in a request means."""

import pytest
from gridlease_scheduler.domain.chips import AcceleratorNeed

from tests.unit.scheduler.fleet import CATALOGUE, GIB


def names(**need):
    return {chip.name for chip in CATALOGUE.matching(AcceleratorNeed(**need))}


def test_a_family_means_all_its_sizes_in_any_case():
    assert names(chips=("a100",)) == {"A100-40GB", "A100-80GB"}
    assert names(chips=("A100-80gb",)) == {"A100-80GB"}


def test_memory_and_vendor_narrow():
    assert names(chips=("A100",), memory_min_bytes=60 * GIB) == {"A100-80GB"}
    assert names(chips=("A100",), memory_max_bytes=60 * GIB) == {"A100-40GB"}
    assert "MI300X-192GB" in names(vendor="AMD")
    assert names(chips=("A100",), vendor="amd") == set()


@pytest.mark.parametrize(
    ("name", "near"), [("H1OO", "H100"), ("jetson-agx-orion", "jetson-agx-orin")]
)
def test_an_unknown_name_has_near_ones(name, near):
    unknown = CATALOGUE.unknown(["A100", name])
    assert unknown.name == name
    assert near in unknown.nearest


def test_a_cpu_is_no_accelerator():
    assert CATALOGUE.unknown(["cpu-x86-64"]) is not None
    assert CATALOGUE.find("cpu-x86-64").vendor == "cpu"


def test_every_entry_is_complete():
    for chip in CATALOGUE.chips:
        assert chip.source, chip
        assert 0 <= chip.idle_watts <= chip.peak_watts, chip
        assert chip.cost > 0, chip
        assert chip.throughput > 0, chip
        assert (chip.memory_bytes > 0) == (chip.vendor != "cpu"), chip
