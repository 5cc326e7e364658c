"""Every row of the tables, on both sides of its boundary, and the rules in their order."""

import csv
import dataclasses
import itertools
import os
from pathlib import Path

import pytest
from gridlease_kernel.faults import Invalid
from gridlease_scheduler.adapters.compat import load_facts
from gridlease_scheduler.domain.chips import Kind
from gridlease_scheduler.domain.software.compat import (
    Code,
    Compatible,
    Flag,
    Host,
    Incompatible,
    Program,
    check,
)
from gridlease_scheduler.domain.software.cuda import carries
from gridlease_scheduler.domain.software.facts import minor, version
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.unit.scheduler.fleet import CATALOGUE

FACTS = load_facts()
DATA = Path(
    os.environ.get("GRIDLEASE_DATA", Path(__file__).parents[4] / "shared" / "data" / "compat")
)
NEWEST = "999.99.99"


def on(name):
    chip = CATALOGUE.find(name)
    assert chip is not None, name
    return chip


def device(capability, **changes):
    """A chip of this capability, such as 8.6."""
    bare = on("A100-80GB")
    name = "sm_" + capability.replace(".", "")
    return dataclasses.replace(bare, name="chip-x", architecture=name, **changes)


def judge(program, host=None, chip=None):
    return check(program, host or Host(driver=NEWEST), chip, FACTS)


def code(verdict):
    assert isinstance(verdict, Incompatible), verdict
    assert verdict.remedy
    return verdict.code


def flags(verdict):
    assert isinstance(verdict, Compatible), verdict
    return set(verdict.flags)


def before(text):
    """The version right before this one."""
    *head, last = (int(part) for part in text.split("."))
    return ".".join(map(str, (*head, last - 1))) if last else ".".join(map(str, (head[0] - 1, 999)))


# -- CUDA: the toolkits, rule 2 and rule 5 --------------------------------------------------------


@pytest.mark.parametrize("row", FACTS.toolkits, ids=lambda row: f"{row.cuda}u{row.update}")
def test_each_toolkits_own_driver_suffices_and_one_before_it_does_not(row):
    cuda = f"{row.cuda}.{row.update}"
    known = next(
        it for it in FACTS.capabilities if it.first <= minor(cuda) <= it.last and not it.jetson
    )
    chip = device(known.text)
    assert flags(judge(Program(cuda=cuda), Host(driver=row.driver), chip)) == set()
    verdict = judge(Program(cuda=cuda), Host(driver=before(row.driver)), chip)
    assert code(verdict) is Code.DRIVER_TOO_OLD
    assert row.driver in verdict.message
    assert verdict.evidence["driver_needed"] == row.driver
    assert "release notes" in verdict.evidence["source"]


@pytest.mark.parametrize("row", FACTS.toolkits, ids=lambda row: f"{row.cuda}u{row.update}")
def test_without_its_update_a_release_needs_its_newest_driver(row):
    newest = max((it.driver for it in FACTS.toolkits if it.cuda == row.cuda), key=version)
    assert FACTS.driver_for(row.cuda) == newest
    assert FACTS.driver_for(f"{row.cuda}.89") == newest  # a build number is no update


def test_a_release_between_the_rows_needs_the_next_ones_driver():
    assert FACTS.driver_for("12.7") == "570.124.06"
    assert FACTS.driver_for("8.0") == "384.81"
    assert FACTS.driver_for("14.0") is None


def test_a_toolkit_after_the_tables_is_not_guessed():
    chip = on("H100-80GB")
    assert code(judge(Program(cuda="13.9"), chip=chip)) is Code.DRIVER_UNKNOWN
    carried = judge(Program(cuda="13.9", sass=("9.0",)), chip=chip)
    assert flags(carried) == {Flag.MINOR_VERSION}


# -- rule 1: what each toolkit knows --------------------------------------------------------------


@pytest.mark.parametrize("row", FACTS.capabilities, ids=lambda row: row.text)
def test_each_capability_is_known_within_its_range_and_not_beyond(row):
    host = Host(driver=NEWEST, l4t="38.2" if row.text == "11.0" else "")
    chip = device(row.text)
    cudas = sorted({it.cuda for it in FACTS.toolkits}, key=version)
    for cuda in cudas:
        verdict = judge(Program(cuda=cuda), host, chip)
        inside = row.first <= minor(cuda) <= row.last
        refused = isinstance(verdict, Incompatible) and verdict.code is (
            Code.CAPABILITY_NOT_IN_TOOLKIT
        )
        assert refused is not inside, cuda
        if refused:
            assert verdict.evidence["capability"] == row.text
            assert (row.last_cuda or row.first_cuda) in verdict.remedy


def test_cuda_13_leaves_volta_behind_and_says_what_would_do():
    verdict = judge(Program(cuda="13.0"), chip=on("V100-16GB"))
    assert code(verdict) is Code.CAPABILITY_NOT_IN_TOOLKIT
    assert "12.9" in verdict.remedy


def test_a_device_that_the_tables_lack_is_admitted_by_driver_with_a_flag():
    verdict = judge(Program(cuda="12.4"), Host(driver="550.54.15"), device("9.9"))
    assert flags(verdict) == {Flag.CAPABILITY_UNKNOWN}


# -- rule 3: minor versions -----------------------------------------------------------------------


@pytest.mark.parametrize("major", sorted(FACTS.floors))
def test_each_floor_admits_whoever_carries_code_for_the_device(major):
    floor = FACTS.floors[major]
    newest = max(
        (it for it in FACTS.toolkits if minor(it.cuda)[0] == major),
        key=lambda it: version(it.driver),
    )
    chip = device("8.0", data_centre=False)
    with_code = Program(cuda=newest.cuda, sass=("8.0",))
    assert flags(judge(with_code, Host(driver=floor), chip)) == {Flag.MINOR_VERSION}
    assert code(judge(with_code, Host(driver=before(floor)), chip)) is Code.DRIVER_TOO_OLD
    verdict = judge(Program(cuda=newest.cuda), Host(driver=floor), chip)
    assert code(verdict) is Code.DRIVER_TOO_OLD
    assert "code for 8.0" in verdict.message
    elsewhere = Program(cuda=newest.cuda, sass=("8.6",))
    assert code(judge(elsewhere, Host(driver=floor), chip)) is Code.DRIVER_TOO_OLD


@pytest.mark.parametrize(
    ("sass", "capability", "jetson", "runs"),
    [
        (("8.0",), (8, 6), False, True),
        (("8.6",), (8,), False, False),
        (("8.0",), (8, 7), True, False),
        (("8.7",), (8, 7), True, True),
        (("sm_80",), (8, 9), False, True),
        (("7.5",), (8,), False, False),
        (("9.0a",), (9,), False, True),
        (("10.0a",), (10, 3), False, False),
        (("10.0",), (10, 3), False, True),
        (("compute_80", ""), (8,), False, False),
        ((), (8,), False, False),
    ],
)
def test_code_runs_within_a_major_upwards_and_never_across_to_a_jetson(
    sass, capability, jetson, runs
):
    assert carries(sass, capability, jetson=jetson) is runs


def test_a_program_without_code_for_the_device_needs_its_ptx():
    chip = on("H100-80GB")
    ptx = Program(cuda="12.4", sass=("8.0",))
    assert flags(judge(ptx, chip=chip)) == {Flag.PTX_JIT}
    bare = Program(cuda="12.4", sass=("8.0",), ptx=False)
    assert code(judge(bare, chip=chip)) is Code.CAPABILITY_NOT_IN_TOOLKIT
    # No just-in-time translation on an older driver: error 222.
    old = judge(ptx, Host(driver="525.85.12"), dataclasses.replace(chip, data_centre=False))
    assert code(old) is Code.DRIVER_TOO_OLD


# -- rule 4: forward compatibility ----------------------------------------------------------------


@pytest.mark.parametrize("branch", sorted(FACTS.branches))
def test_each_data_centre_branch_carries_newer_libraries(branch):
    carried = Program(cuda="13.2", cuda_compat=True)
    host = Host(driver=f"{branch}.10")
    assert flags(judge(carried, host, on("H100-80GB"))) == {Flag.FORWARD_COMPATIBILITY}
    assert code(judge(carried, host, on("RTX-4090-24GB"))) is Code.DRIVER_TOO_OLD
    assert code(judge(Program(cuda="13.2"), host, on("H100-80GB"))) is Code.DRIVER_TOO_OLD


def test_a_branch_that_the_tables_lack_is_flagged():
    verdict = judge(Program(cuda="13.2", cuda_compat=True), Host(driver="555.42.02"), on("L4-24GB"))
    assert flags(verdict) == {Flag.FORWARD_COMPATIBILITY, Flag.BRANCH_UNLISTED}


def test_a_default_wheel_of_cuda_13_is_refused_below_580():
    verdict = judge(Program(cuda="13.0"), Host(driver="570.86.15"), on("RTX-4090-24GB"))
    assert code(verdict) is Code.DRIVER_TOO_OLD
    assert "580.95.05" in verdict.message
    assert verdict.evidence["driver"] == "570.86.15"


# -- JetPack --------------------------------------------------------------------------------------


def jetson(row):
    return device(row.capabilities[-1], kind=Kind.EDGE, data_centre=False)


@pytest.mark.parametrize("row", FACTS.jetpacks, ids=lambda row: row.jetpack)
def test_each_jetpack_runs_its_own_images_and_its_own_cuda(row):
    host = Host("aarch64", l4t=row.l4t)
    for program in (
        Program("aarch64", jetpack=row.jetpack),
        Program("aarch64", cuda=row.cuda),
        Program("aarch64", cuda=row.cuda, jetpack=row.jetpack),
    ):
        assert flags(judge(program, host, jetson(row))) == set()


@pytest.mark.parametrize("row", FACTS.jetpacks, ids=lambda row: row.jetpack)
def test_each_jetpack_refuses_a_device_that_it_is_not_for(row):
    chip = device("8.0")
    assert code(judge(Program(cuda=row.cuda), Host(l4t=row.l4t), chip)) in {
        Code.JETPACK_MISMATCH,
        Code.CAPABILITY_NOT_IN_TOOLKIT,
    }


@pytest.mark.parametrize(
    ("image", "host"),
    list(itertools.permutations(FACTS.jetpacks, 2)),
    ids=lambda row: row.jetpack,
)
def test_an_image_runs_on_its_own_major_and_not_before_its_release(image, host):
    built, have = version(image.l4t), version(host.l4t)
    alike = built[:2] == have[:2] if built[0] == 32 else built[0] == have[0]
    verdict = judge(Program(jetpack=image.jetpack), Host(l4t=host.l4t), jetson(host))
    if alike and have >= built:
        assert flags(verdict) == set()
    else:
        assert code(verdict) is Code.JETPACK_MISMATCH
        assert image.l4t in verdict.message


def test_a_newer_cuda_on_a_jetson_names_the_jetpack_that_has_it():
    orin, host = on("jetson-agx-orin"), Host(l4t="35.4.1")
    verdict = judge(Program(cuda="12.4"), host, orin)
    assert code(verdict) is Code.DRIVER_TOO_OLD
    assert "JetPack 6.0" in verdict.message
    assert flags(judge(Program(cuda="12.4", cuda_compat=True), host, orin)) == {
        Flag.FORWARD_COMPATIBILITY
    }
    assert code(judge(Program(cuda="13.0"), Host(l4t="36.4.0"), orin)) is Code.DRIVER_TOO_OLD


def test_the_oldest_jetsons_have_no_forward_compatibility():
    program = Program(cuda="11.4", cuda_compat=True)
    host = Host(l4t="32.7.1")
    assert code(judge(program, host, on("jetson-xavier-nx"))) is Code.DRIVER_TOO_OLD


def test_an_l4t_between_the_rows_is_judged_by_the_one_before_and_flagged():
    verdict = judge(Program(cuda="12.6"), Host(l4t="36.4.7"), on("jetson-orin-nano"))
    assert flags(verdict) == {Flag.JETPACK_NEAREST}
    assert verdict.evidence["jetpack"] == "6.2"


@pytest.mark.parametrize("l4t", ["", "what", "36.1", "40.1"])
def test_an_l4t_that_nobody_knows_is_not_guessed(l4t):
    verdict = judge(Program(cuda="11.4"), Host(l4t=l4t), on("jetson-agx-orin"))
    assert code(verdict) is Code.DRIVER_UNKNOWN


def test_a_jetpack_that_nobody_knows_and_one_on_another_device():
    verdict = judge(Program(jetpack="9.9"), Host(l4t="36.4.0"), on("jetson-agx-orin"))
    assert code(verdict) is Code.JETPACK_MISMATCH
    assert "6.2" in verdict.remedy
    assert code(judge(Program(jetpack="6.2"), chip=on("A100-80GB"))) is Code.JETPACK_MISMATCH


# -- ROCm -----------------------------------------------------------------------------------------

TARGETS = sorted({t for row in FACTS.rocms for t in row.wheel_targets} | {"gfx950"})


def amd(target):
    return dataclasses.replace(on("MI300X-192GB"), architecture=target)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("row", FACTS.rocms, ids=lambda row: row.rocm)
def test_each_rocm_has_its_targets(row, target):
    host = Host(rocm=row.driver_low)
    verdict = judge(Program(rocm=row.rocm), host, amd(target))
    wheel = judge(Program(rocm=row.rocm, wheel=True), host, amd(target))
    if target in row.targets:
        assert flags(verdict) == flags(wheel) == set()
    else:
        assert code(verdict) is Code.ROCM_TARGET_MISSING
        assert row.targets[0] in verdict.remedy
        if target in row.wheel_targets:
            assert flags(wheel) == {Flag.UNOFFICIAL_TARGET}
        else:
            assert code(wheel) is Code.ROCM_TARGET_MISSING


@pytest.mark.parametrize("row", FACTS.rocms, ids=lambda row: row.rocm)
def test_each_rocm_has_its_drivers(row):
    program, chip = Program(rocm=row.rocm), amd("gfx942")
    assert flags(judge(program, Host(rocm=row.driver_high), chip)) == set()
    assert flags(judge(program, Host(rocm=row.driver_high + ".4"), chip)) == set()
    assert flags(judge(program, Host(rocm="7.0"), chip)) == {Flag.UNTESTED_DRIVER}
    assert code(judge(program, Host(), chip)) is Code.DRIVER_UNKNOWN
    verdict = judge(program, Host(rocm="5.5"), chip)
    assert code(verdict) is Code.DRIVER_TOO_OLD
    assert row.driver_low in verdict.message


def test_a_patch_of_rocm_is_its_release_and_another_release_is_not_guessed():
    host = Host(rocm="6.2")
    assert flags(judge(Program(rocm="6.1.3"), host, amd("gfx942"))) == set()
    assert code(judge(Program(rocm="7.0"), host, amd("gfx942"))) is Code.ROCM_TARGET_MISSING


# -- everything else ------------------------------------------------------------------------------


def test_another_architecture_is_refused_whatever_it_is_called():
    verdict = judge(Program("arm64", cuda="12.4"), Host("x86_64", NEWEST), on("A100-80GB"))
    assert code(verdict) is Code.ARCHITECTURE_MISMATCH
    assert judge(Program("amd64"), Host("x86-64")) == Compatible()
    assert judge(Program("aarch64"), Host("")) == Compatible()


@pytest.mark.parametrize(
    ("program", "name"),
    [
        (Program(cuda="12.4"), "MI300X-192GB"),
        (Program(cuda="12.4"), "tpu-v5e"),
        (Program(rocm="6.3"), "A100-80GB"),
        (Program(jetpack="6.2"), "gaudi2"),
    ],
)
def test_a_program_of_another_makers_is_refused(program, name):
    assert code(judge(program, chip=on(name))) is Code.ARCHITECTURE_MISMATCH


def test_who_asks_for_nothing_runs_anywhere():
    assert judge(Program(), Host(), on("A100-80GB")) == Compatible()
    assert judge(Program(cuda="13.2"), Host(), None) == Compatible()


@pytest.mark.parametrize("driver", ["", "unknown", "5x0.1"])
def test_a_driver_that_nobody_tells_is_not_guessed(driver):
    verdict = judge(Program(cuda="12.4"), Host(driver=driver), on("A100-80GB"))
    assert code(verdict) is Code.DRIVER_UNKNOWN
    assert "550.54.15" in verdict.message


def test_a_toolkit_that_is_no_version_is_refused():
    assert code(judge(Program(cuda="latest"), chip=on("A100-80GB"))) is Code.DRIVER_UNKNOWN


DRIVERS = st.sampled_from(sorted({it.driver for it in FACTS.toolkits} | set(FACTS.floors.values())))
PROGRAMS = st.builds(
    Program,
    cuda=st.sampled_from(sorted({f"{it.cuda}.{it.update}" for it in FACTS.toolkits})),
    sass=st.lists(st.sampled_from(["7.0", "8.0", "8.6", "9.0"]), max_size=2).map(tuple),
    cuda_compat=st.booleans(),
)
CHIPS = st.sampled_from([c for c in CATALOGUE.chips if c.architecture.startswith("sm_")])


@given(PROGRAMS, DRIVERS, DRIVERS, CHIPS)
def test_a_newer_driver_never_loses_a_program(program, one, other, chip):
    assume(chip.kind is not Kind.EDGE)
    older, newer = sorted((one, other), key=version)
    if isinstance(judge(program, Host(driver=older), chip), Compatible):
        assert isinstance(judge(program, Host(driver=newer), chip), Compatible)


def test_every_chip_of_the_catalogue_that_has_a_capability_is_in_the_tables():
    for chip in CATALOGUE.chips:
        if chip.architecture.startswith("sm_"):
            text = f"{chip.architecture[3:-1]}.{chip.architecture[-1]}"
            assert FACTS.capability(version(text)) is not None, chip.name


# -- the files ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ('[[toolkit]]\ncuda = "12.x"\nupdate = 0\ndriver = "1"', "toolkit[0].cuda"),
        ('[[toolkit]]\ncuda = "12.4"\ndriver = "1"', "toolkit[0].update"),
        ('[[toolkits]]\ncuda = "12.4"', "toolkits"),
        ('[[jetpack]]\njetpack = "1"\nl4t = "1"\ncuda = "1"\nubuntu = "1"\ncapabilities = [1]', ""),
        ('[[minor]]\ncuda_major = 14\ndriver = "600.1"\nnotes = "x"', "minor[0].notes"),
    ],
)
def test_a_bad_table_is_refused_by_file_field_and_remedy(tmp_path, text, field):
    (tmp_path / "more.toml").write_text(text + "\n")
    with pytest.raises(Invalid) as caught:
        load_facts([tmp_path])
    assert caught.value.reason == "BAD_COMPAT_FILE"
    assert caught.value.field.startswith(f"more.toml:{field}")
    assert caught.value.remedy


def test_a_further_folder_adds_its_rows(tmp_path):
    text = '[[toolkit]]\ncuda = "14.0"\nupdate = 0\ndriver = "700.1"\n'
    (tmp_path / "cuda14.toml").write_text(text)
    facts = load_facts([tmp_path])
    assert facts.driver_for("14.0") == "700.1"
    assert isinstance(
        check(Program(cuda="14.0"), Host(driver="700.1"), on("B200-180GB"), facts), Compatible
    )


def table(name):
    path = DATA / name
    if not path.exists():
        pytest.skip(f"the research tables are not here: {DATA}")
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_files_hold_what_was_researched():
    toolkits = {
        (
            row["cuda"],
            0 if row["update"] == "GA" else int(row["update"].removeprefix("Update ")),
            row["driver_min_linux_x86_64"],
        )
        for row in table("cuda_toolkit_driver.csv")
    }
    assert {(it.cuda, it.update, it.driver) for it in FACTS.toolkits} == toolkits
    floors = {int(r["cuda_major"]): r["driver_floor_linux"] for r in table("cuda_minor_compat.csv")}
    assert dict(FACTS.floors) == floors
    capabilities = {
        (r["compute_capability"], r["first_cuda"], r["last_cuda_inclusive"], r["jetson"] == "yes")
        for r in table("compute_capability.csv")
    }
    ours = {(it.text, it.first_cuda, it.last_cuda, it.jetson) for it in FACTS.capabilities}
    assert capabilities <= ours
    assert {row[0] for row in ours - capabilities} == {"5.3", "6.2"}  # from the JetPack rows
    jetpacks = {
        (r["jetpack"], r["l4t"], r["cuda"], tuple(r["compute_capabilities"].split(";")))
        for r in table("jetpack.csv")
    }
    assert {(it.jetpack, it.l4t, it.cuda, it.capabilities) for it in FACTS.jetpacks} == jetpacks
    rocms = {
        (
            r["rocm"],
            tuple(r["officially_supported_gfx"].split(";")),
            tuple(r["pytorch_wheel_gfx"].split(";")),
            r["user_space_tested_with_kernel_driver"],
        )
        for r in table("rocm_targets.csv")
    }
    assert {
        (it.rocm, it.targets, it.wheel_targets, f"{it.driver_low}-{it.driver_high}")
        for it in FACTS.rocms
    } == rocms
    branches = {int(r["branch"][1:]): r["designation"] for r in table("driver_branches.csv")}
    assert dict(FACTS.branch_names) == branches
