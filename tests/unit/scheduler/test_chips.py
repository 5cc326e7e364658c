"""The catalogue, what a name in a request means, and what a new data file needs: no code."""

import dataclasses
import re
from pathlib import Path

import pytest
from gridlease_kernel.faults import Invalid
from gridlease_scheduler.adapters.catalogue import load, read
from gridlease_scheduler.domain.chips import AcceleratorNeed, Basis, Kind, Work, roofline
from gridlease_scheduler.domain.job import Purpose
from gridlease_scheduler.domain.node import Device, Node
from gridlease_scheduler.domain.placing.preference import Candidate, Wish, rank
from gridlease_scheduler.domain.plan import Placed, decide
from gridlease_scheduler.domain.software.compat import Code, Flag

from tests.unit.scheduler.fleet import CATALOGUE, GIB, needs, node, task

NEW = """
[[chip]]
name = "Nova-64GB"
vendor = "nova"
kind = "gpu"
family = "Nova"
architecture = "nova1"
memory_bytes = 68_719_476_736
idle_watts = 10
peak_watts = 50
throughput = { training = 900, inference = 800 }
latency_us = { ResNet-50 = 90 }
cost = 1
source = "its data sheet"
"""


def names(**need):
    return {chip.name for chip in CATALOGUE.matching(AcceleratorNeed(**need))}


def written(folder, text, name="new.toml"):
    (folder / name).write_text(text)
    return folder


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


@pytest.mark.parametrize("chip", CATALOGUE.chips, ids=lambda chip: chip.name)
def test_every_entry_is_complete(chip):
    assert chip.source
    assert chip.architecture
    assert 0 <= chip.idle_watts <= chip.peak_watts
    assert chip.cost > 0
    assert all(chip.throughput_for(work) > 0 for work in Work)
    assert (chip.memory_bytes > 0) == (chip.vendor != "cpu")
    assert (chip.kind is Kind.CPU) == (chip.vendor == "cpu")
    if chip.embodied:
        assert chip.embodied.source
        assert chip.embodied.uncertainty_percent > 0


@pytest.mark.parametrize("chip", CATALOGUE.chips, ids=lambda chip: chip.name)
def test_a_roofline_figure_is_what_the_data_sheet_gives(chip):
    for work, basis in zip(Work, chip.basis, strict=True):
        if basis is Basis.ROOFLINE:
            want = roofline(chip.tflops, chip.memory_gbytes_per_s)
            assert chip.throughput_for(work) == want


def test_the_reference_is_the_reference():
    chip = CATALOGUE.find("A100-80GB")
    assert [chip.throughput_for(work) for work in Work] == [100, 100, 100]
    assert chip.cost == 100


def test_a_latency_is_known_or_it_is_not():
    assert CATALOGUE.find("L4-24GB").latency_for("ResNet-50") == 362
    assert CATALOGUE.find("L4-24GB").latency_for("other") is None
    assert CATALOGUE.find("MI300X-192GB").latency_for("resnet-50") is None


def test_a_new_chip_is_a_data_file_and_no_code(tmp_path):
    catalogue = load([written(tmp_path, NEW)])
    chip = catalogue.find("nova-64gb")
    assert chip.latency_for("resnet-50") == 90
    assert chip.throughput_for(Work.BATCH) == 900
    rest = (catalogue.find("H100-80GB"), catalogue.find("jetson-nano"))
    for wish in (
        Wish(Purpose.TRAINING),
        Wish(Purpose.INFERENCE, latency_target_us=100, model_class="resnet-50"),
        Wish(Purpose.BATCH),
    ):
        ranked = rank(wish, [Candidate(it.name, it) for it in (*rest, chip)])
        assert ranked[0].candidate.name == "Nova-64GB", wish


@pytest.mark.parametrize("purpose", [Purpose.TRAINING, Purpose.BATCH])
def test_a_new_chip_is_placed_like_any_other(tmp_path, purpose):
    catalogue = load([written(tmp_path, NEW)])
    nova = Node(
        "nova",
        "local",
        "cpu-x86-64",
        8_000,
        32 * GIB,
        100 * GIB,
        (Device("d", "Nova-64GB", "nova", 64 * GIB),),
    )
    asked = needs("A100", "Nova", purpose=purpose)
    decision = decide(task(need=asked), (node("a", "A100-80GB"), nova), catalogue)
    assert isinstance(decision, Placed)
    assert decision.allocation.chip == "Nova-64GB"


def test_an_operators_entry_replaces_the_published_one(tmp_path):
    text = NEW.replace("Nova-64GB", "T4-16GB")
    assert load([written(tmp_path, text)]).find("T4-16GB").throughput == 900
    assert len(load([tmp_path]).chips) == len(CATALOGUE.chips)


def test_what_a_node_calls_a_chip_is_its_catalogues_name():
    assert CATALOGUE.canonical("RTX-A6000-48GB") == "A6000-48GB"
    assert CATALOGUE.canonical("a6000-48gb") == "A6000-48GB"
    assert CATALOGUE.canonical("mystery") == "mystery"
    called = [alias for chip in CATALOGUE.chips for alias in (chip.name, *chip.aliases)]
    assert len({name.lower() for name in called}) == len(called)


def test_without_its_own_table_a_chip_has_the_defaults(tmp_path):
    (chip,) = read(written(tmp_path, NEW))
    assert chip.basis == (Basis.ESTIMATE,) * 3
    assert chip.interconnect.kind == "none"
    assert chip.embodied is None


@pytest.mark.parametrize(
    ("old", "new", "field", "word"),
    [
        ('name = "Nova-64GB"\n', "", "chip[0].name", "missing"),
        ('name = "Nova-64GB"', "name = 7", "chip[0].name", "text"),
        ('name = "Nova-64GB"', 'name = " "', "chip[0].name", "text"),
        ("peak_watts = 50", "peak_watts = 5", "chip[0].peak_watts", "at least 10"),
        ("peak_watts = 50", "peak_watts = 50.5", "chip[0].peak_watts", "whole"),
        ("peak_watts = 50", "peak_wats = 50", "chip[0].peak_watts", "missing"),
        ("cost = 1", "cost = 0", "chip[0].cost", "at least 1"),
        ("cost = 1", "cost = true", "chip[0].cost", "whole"),
        ("cost = 1", "cost = 1\ncots = 2", "chip[0].cots", "No such field"),
        ('kind = "gpu"', 'kind = "npu"', "chip[0].kind", "not known"),
        ("training = 900", "training = 0", "chip[0].throughput.training", "at least 1"),
        ("training = 900", "trainig = 900", "chip[0].throughput.training", "missing"),
        ("inference = 800", "inferenc = 800", "chip[0].throughput.inferenc", "No such field"),
        ("ResNet-50 = 90", "ResNet-50 = 0", "chip[0].latency_us.ResNet-50", "above 0"),
        ("{ ResNet-50 = 90 }", "3", "chip[0].latency_us", "table"),
        ("cost = 1", 'cost = 1\nbasis = { batch = "guess" }', "chip[0].basis.batch", "not known"),
        ("cost = 1", 'cost = 1\ninterconnect = { kind = "x" }', "chip[0].interconnect.kind", "not"),
        ("cost = 1", "cost = 1\nembodied = { kg = 9 }", "chip[0].embodied.unc", "missing"),
        ("cost = 1", "cost = 1\ndata_centre = 1", "chip[0].data_centre", "true"),
        ("[[chip]]", "[[chips]]", "chips", "No such record"),
        ("[[chip]]", "[chip]", "chip", "list"),
        ("cost = 1", "cost = ", "", "TOML"),
    ],
)
def test_a_bad_file_is_refused_by_file_field_and_remedy(tmp_path, old, new, field, word):
    assert old in NEW
    with pytest.raises(Invalid) as caught:
        load([written(tmp_path, NEW.replace(old, new, 1))])
    assert caught.value.reason == "BAD_CHIP_FILE"
    assert caught.value.field.startswith(f"new.toml:{field}" if field else "new.toml")
    assert "new.toml" in caught.value.message
    assert word in caught.value.message
    assert caught.value.remedy


def test_a_misspelt_field_is_told_the_right_one(tmp_path):
    with pytest.raises(Invalid) as caught:
        load([written(tmp_path, NEW + "interconect = 1\n")])
    assert "interconnect" in caught.value.remedy


def test_a_name_stands_once_in_a_folder(tmp_path):
    written(tmp_path, NEW, "a.toml")
    with pytest.raises(Invalid, match="twice") as caught:
        load([written(tmp_path, NEW.lower(), "b.toml")])
    assert caught.value.field == "b.toml:chip[0].name"


def test_the_page_says_it_as_it_is(tmp_path):
    page = (Path(__file__).parents[3] / "docs" / "chips.md").read_text()
    (example,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    (chip,) = read(written(tmp_path, example))
    assert chip.latency_for("resnet-50") == 310
    told = set(
        re.findall(r"`([a-z_]+)`", page[page.index("| field |") : page.index("`roofline` is")])
    )
    shown = {"inference", "batch"}  # within throughput
    assert {field.name for field in dataclasses.fields(chip)} - shown <= told
    for code in (*Code, *Flag):
        assert f"`{code}`" in page


def test_other_files_of_a_folder_are_left_alone(tmp_path):
    assert load([written(tmp_path, "nothing", "README.md")]).chips == CATALOGUE.chips
