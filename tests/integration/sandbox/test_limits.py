"""Limits bite and are reported: memory, processes, CPU."""

from __future__ import annotations

import threading
import time

import pytest
from gridlease_agent import shim
from gridlease_agent.isolate import cgroups
from gridlease_agent.runtimes.spec import SandboxSpec
from gridlease_agent.sandbox import Deadline

from .conftest import wait_for

pytestmark = pytest.mark.root
MIB = 1 << 20
HOG = "x = []\nwhile True: x.append(bytearray(8 << 20))"


def test_a_memory_hog_is_killed_and_reported(crun_bench):
    record, _log = crun_bench.run(f"exec /usr/bin/python3 -c '{HOG}'", memory_bytes=64 * MIB)
    assert (record.reason, record.oom, record.exit_code) == ("OOM_KILLED", True, 137)
    assert record.max_memory_bytes <= 64 * MIB


def test_a_memory_hog_is_reported_though_only_a_child_died(crun_bench):
    script = f"/usr/bin/python3 -c '{HOG}'; echo child said $?; exit 0"
    record, log = crun_bench.run(script, memory_bytes=64 * MIB)
    assert (record.reason, record.oom, record.exit_code) == ("OOM_KILLED", True, 0)
    assert "child said 137" in log


def test_tmp_counts_as_memory_and_has_its_size(crun_bench):
    script = "head -c 50000000 /dev/zero > /tmp/f; ls -s /tmp/f | cut -d' ' -f1; exit 0"
    record, log = crun_bench.run(script, tmp_bytes=8 * MIB)
    assert record.reason == "EXITED"
    assert "No space left" in log


def test_a_fork_bomb_hits_its_limit(crun_bench):
    script = "i=0; while [ $i -lt 200 ]; do sleep 30 & i=$((i+1)); done; echo all 200; wait"
    record, log = crun_bench.run(script, pids=32)
    assert record.exit_code != 0
    assert "all 200" not in log
    assert "fork" in log


def test_a_real_fork_bomb_is_over_at_the_kill(crun_bench):
    lease_id = crun_bench.start("b() { b | b & }; b; echo up; sleep 60", pids=64)
    crun_bench.running(lease_id)
    wait_for(lambda: (now := cgroups.counters(crun_bench.cgroup(lease_id))) and now.pids >= 60)
    crun_bench.sandboxes.kill(lease_id)
    assert crun_bench.exited(lease_id, 10).record.clean


def _share(bench, lease_id: str, seconds: float) -> float:
    """CPU time over wall time across a whole number of quota periods."""
    first, began = cgroups.counters(bench.cgroup(lease_id)), time.monotonic_ns()
    threading.Event().wait(seconds)
    last, ended = cgroups.counters(bench.cgroup(lease_id)), time.monotonic_ns()
    return (last.cpu_ns - first.cpu_ns) / (ended - began)


@pytest.mark.parametrize(
    ("seconds", "within"), [(3, 0.03), pytest.param(10, 0.01, marks=pytest.mark.slow)]
)
def test_a_quarter_of_a_cpu_is_a_quarter(crun_bench, seconds, within):
    """One thread, cpuacct's delta: over 10 s within 1 % of itself."""
    lease_id = crun_bench.start("echo up; while :; do :; done", cpu_milli=250)
    crun_bench.says(lease_id, "up")
    share = _share(crun_bench, lease_id, seconds)
    assert share == pytest.approx(0.25, rel=within)


def test_counters_of_a_lease_without_a_cgroup():
    assert cgroups.counters("gridlease/ls-none") is None


def test_the_exit_record_counts_cpu_time(crun_bench):
    lease_id = crun_bench.start("while :; do :; done")
    crun_bench.running(lease_id)
    wait_for(
        lambda: (now := cgroups.counters(crun_bench.cgroup(lease_id))) and now.cpu_ns > 300_000_000
    )
    crun_bench.sandboxes.kill(lease_id)
    assert crun_bench.exited(lease_id).record.cpu_ns > 300_000_000


def test_nothing_is_left_of_the_cgroup(crun_bench):
    lease_id = crun_bench.start("exit 0")
    crun_bench.exited(lease_id)
    assert shim.Cgroup(crun_bench.cgroup(lease_id)).left() == []


def test_a_disk_bomb_ends_near_its_limit(crun_bench):
    """The first write after a calm second has it counted: not after another whole second."""
    if not crun_bench.sandboxes.keeper.holds:
        pytest.skip("the keeper in Python looks twice a second")
    script = (
        "import itertools, threading\nthreading.Event().wait(1.2)\n"
        "for at in itertools.count(): open(str(at), 'wb').write(bytes(1 << 20))"
    )
    (crun_bench.sandboxes.prepare("ls-bomb") / "bomb.py").write_text(script)
    argv = ("/usr/bin/python3", "-I", "-S", "bomb.py")
    spec = SandboxSpec("ls-bomb", argv, disk_bytes=64 * MIB)
    crun_bench.sandboxes.start("ls-bomb", spec, Deadline.after(60_000, 0))
    assert crun_bench.exited("ls-bomb").record.reason == "DISK_QUOTA"
    work = crun_bench.folder("ls-bomb") / "work"
    assert sum(path.stat().st_blocks * 512 for path in work.iterdir()) < 320 * MIB
