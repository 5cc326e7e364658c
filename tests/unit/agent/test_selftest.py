"""The host's own test: what makes it unfit, and that it is measured once a boot and driver."""

import json

import pytest
from gridlease_agent.domain.fitness import Finding, ailment, clocks
from gridlease_agent.selftest import SelfTest
from gridlease_kernel.clock import ManualClock, SystemClock

GOOD = {
    "proc/sys/kernel/seccomp/actions_avail": "kill_process kill_thread errno log allow\n",
    "proc/cgroups": "#name\ncpu 1 2 1\nmemory 3 2 1\npids 5 2 1\n",
}


def host(folder, **changed):
    files = {**GOOD, **{name.replace("__", "/"): text for name, text in changed.items()}}
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def check_of(tmp_path, root, burn_in_ms=0, boot="b", drivers=None, clock=None):
    return SelfTest(tmp_path, clock or SystemClock(), root)(boot, drivers or {}, burn_in_ms)


def test_a_host_that_is_well_says_nothing(tmp_path):
    found = check_of(tmp_path, host(tmp_path / "root"))
    assert (found.score, found.ailment) == (0, "")
    assert not (tmp_path / "selftest").exists()


def test_this_host_is_fit_and_is_measured(tmp_path):
    found = SelfTest(tmp_path, SystemClock())("b", {}, 30)
    assert found.ailment == ""
    assert 1 <= found.score <= 1000


def test_a_kernel_without_filters_is_unfit(tmp_path):
    root = host(tmp_path / "root")
    (root / "proc/sys/kernel/seccomp/actions_avail").unlink()
    assert check_of(tmp_path, root).ailment == "seccomp: this kernel cannot filter system calls"


@pytest.mark.root
def test_controllers_are_looked_for_in_both_versions(tmp_path):
    root = host(tmp_path / "root", proc__cgroups="#name\ncpu 1 2 1\npids 5 2 0\n")
    assert check_of(tmp_path, root).ailment == "cgroup: memory, pids cannot be limited"
    unified = root / "sys/fs/cgroup/cgroup.controllers"
    unified.parent.mkdir(parents=True)
    unified.write_text("cpuset cpu io memory pids\n")
    assert check_of(tmp_path, root).ailment == ""


def test_a_clock_that_stands_still_is_unfit(tmp_path):
    found = check_of(tmp_path, host(tmp_path / "root"), clock=ManualClock())
    assert found.ailment == "clock: it stands still"


def test_clocks_that_run_apart_or_lie_in_the_past():
    second = 1_000_000_000
    assert clocks(second, second, 2e9, 1e9) == Finding("clock")
    assert "2000 ppm" in clocks(second + 2_000_000, second, 2e9, 1e9).trouble
    assert clocks(50_000, 20_000, 2e9, 1e9) == Finding("clock")  # too short to tell
    assert "past" in clocks(second, second, 5.0, 1e9).trouble


def test_a_full_disk_is_unfit(tmp_path):
    found = SelfTest(tmp_path / "gone", SystemClock(), host(tmp_path / "root"))("b", {}, 30)
    assert found.ailment == "disk: No such file or directory"
    assert found.score == 0


def test_the_score_is_kept_for_the_boot_and_the_drivers(tmp_path):
    root = host(tmp_path / "root")
    first = check_of(tmp_path, root, 15, drivers={"cuda": "550"})
    kept = json.loads((tmp_path / "burn-in.json").read_text())
    assert kept["score"] == first.score >= 1
    (tmp_path / "burn-in.json").write_text(json.dumps(kept | {"score": 7}))
    assert check_of(tmp_path, root, 15, drivers={"cuda": "550"}).score == 7
    (tmp_path / "burn-in.json").write_text(json.dumps(kept | {"boot_id": "another"}))
    check_of(tmp_path, root, 15, drivers={"cuda": "550"})
    assert json.loads((tmp_path / "burn-in.json").read_text())["boot_id"] == "b"
    check_of(tmp_path, root, 15, drivers={"cuda": "560"})
    assert json.loads((tmp_path / "burn-in.json").read_text())["drivers"] == {"cuda": "560"}


def test_a_long_ailment_fits_the_wire():
    words = ailment([Finding("disk", "x" * 300)])
    assert len(words) == 200
