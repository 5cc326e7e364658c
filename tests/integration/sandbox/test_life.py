"""A task's life: exit codes, deadlines, notices, and the deaths of those who keep it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import pytest
from gridlease_agent import shim
from gridlease_agent.sandbox import Absent, Deadline, Exited
from gridlease_kernel.faults import Exists, Precondition

from .conftest import wait_for

OBEYS = (
    "trap 'echo told; cat /run/gridlease/notice.json; exit 9' TERM;"
    " echo up; while :; do sleep 0.05; done"
)
IGNORES = "trap '' TERM; echo up; while :; do sleep 0.05; done"


def _ran_ms(state: Exited) -> float:
    return (state.record.ended_boottime_ns - state.started_boottime_ns) / 1e6


@pytest.mark.parametrize("code", [0, 1, 7, 255])
def test_exit_code_is_kept(bench, code):
    record, log = bench.run(f"echo out; echo err >&2; exit {code}")
    assert (record.exit_code, record.reason, record.oom) == (code, "EXITED", False)
    assert sorted(log.split()) == ["err", "out"]
    assert record.clean
    assert record.cpu_ns > 0


def test_a_signal_is_an_exit_code_of_128_and_more(bench):
    record, _log = bench.run("kill -SEGV $$")
    assert record.exit_code == 128 + signal.SIGSEGV


def test_a_command_that_is_not_there(bench):
    lease_id = bench.start_argv(("/no/such/program",))
    assert bench.exited(lease_id).record.exit_code == 127


def test_a_lease_starts_at_most_once(bench):
    lease_id = bench.start("exit 0")
    bench.exited(lease_id)
    with pytest.raises(Exists):
        bench.sandboxes.start(lease_id, _spec(lease_id), Deadline.after(1000, 0))
    done = subprocess.run(
        [sys.executable, "-I", "-S", shim.__file__, str(bench.folder(lease_id))], check=False
    )
    assert done.returncode == 3


def _spec(lease_id):
    from gridlease_agent.runtimes.spec import SandboxSpec

    return SandboxSpec(lease_id, ("/bin/true",))


def test_deadline_kills_what_ignores_sigterm_though_the_agent_is_dead(bench):
    """The process that spawned the shim is killed at once: the shim holds the deadline alone."""
    code = f"""
import os, sys
from pathlib import Path
from gridlease_agent.runtimes.choose import Runtime
from gridlease_agent.runtimes.spec import SandboxSpec
from gridlease_agent.sandbox import Deadline, Sandboxes
sandboxes = Sandboxes(Path({str(bench.state_dir)!r}), {bench.runtime!r})
spec = SandboxSpec("ls-orphan", ("/bin/sh", "-c", {IGNORES!r}))
sandboxes.start("ls-orphan", spec, Deadline.after(2000, 500))
os.kill(os.getpid(), 9)
"""
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], check=False)
    assert done.returncode == -signal.SIGKILL
    state = bench.exited("ls-orphan")
    took = time.monotonic() - began
    assert state.record.reason == "DEADLINE"
    assert state.record.exit_code == 137
    ends_ns = json.loads((bench.folder("ls-orphan") / "deadline.json").read_text())["boottime_ns"]
    assert 0 <= state.record.ended_boottime_ns - ends_ns < 1_000_000_000
    assert took < 4


def test_what_obeys_exits_at_deadline_minus_grace(bench):
    lease_id = bench.start(OBEYS, span_ms=3000, grace_ms=2000)
    state = bench.exited(lease_id)
    assert state.record.exit_code == 9
    assert state.record.reason == "DEADLINE"
    assert 600 < _ran_ms(state) < 2000
    assert "told" in bench.log(lease_id)
    assert '"reason": "DEADLINE"' in bench.log(lease_id)


def test_the_notice_says_why_and_until_when(bench):
    lease_id = bench.start(OBEYS)
    bench.says(lease_id, "up")
    sent_s = time.time()
    bench.sandboxes.stop(lease_id, 20_000, "STOPPED", ("PREEMPTED", "Another needs its place."))
    bench.sandboxes.stop(lease_id, 20_000, "OTHER", ("OTHER", "The first word stays."))
    assert bench.exited(lease_id).record.reason == "STOPPED"
    notice = json.loads(bench.log(lease_id).partition("told\n")[2])
    assert (notice["reason"], notice["message"]) == ("PREEMPTED", "Another needs its place.")
    assert 10_000 < notice["notice_ms"] <= 20_000
    ends_s = datetime.fromisoformat(notice["deadline"]).timestamp()
    assert 15 < ends_s - sent_s < 25


def test_a_plain_program_dies_of_the_sigterm(bench):
    lease_id = bench.start_argv(("/bin/sleep", "60"), span_ms=30_000, grace_ms=0)
    bench.running(lease_id)
    bench.sandboxes.stop(lease_id, 20_000)
    state = bench.exited(lease_id, 10)
    assert (state.record.exit_code, state.record.reason) == (143, "STOPPED")


def test_an_extension_before_the_warning_changes_nothing(bench):
    lease_id = bench.start(f"({OBEYS})", span_ms=1500, grace_ms=500)
    bench.says(lease_id, "up")
    bench.sandboxes.extend(lease_id, Deadline.after(60_000, 500))
    old_end = shim.boottime_ns() + 1_700_000_000
    wait_for(lambda: shim.boottime_ns() > old_end)
    bench.running(lease_id)
    assert "told" not in bench.log(lease_id)
    assert not (bench.folder(lease_id) / "notice/notice.json").exists()


def test_an_extension_is_seen_without_the_poke(bench, monkeypatch):
    lease_id = bench.start(OBEYS, span_ms=2500, grace_ms=1000)
    bench.says(lease_id, "up")
    monkeypatch.setattr(bench.sandboxes, "poke", lambda _lease_id: None)
    bench.sandboxes.extend(lease_id, Deadline.after(60_000, 1000))
    old_end = shim.boottime_ns() + 2_700_000_000
    wait_for(lambda: shim.boottime_ns() > old_end)
    bench.running(lease_id)


def test_an_extension_after_the_warning_takes_the_notice_back(bench):
    lease_id = bench.start(IGNORES)
    bench.says(lease_id, "up")
    bench.sandboxes.extend(lease_id, Deadline.after(20_000, 19_950))
    notice = bench.folder(lease_id) / "notice/notice.json"
    wait_for(notice.exists)
    bench.sandboxes.extend(lease_id, Deadline.after(60_000, 100))
    wait_for(lambda: not notice.exists())
    bench.running(lease_id)


def test_stop_with_notice(bench):
    lease_id = bench.start(IGNORES)
    bench.says(lease_id, "up")
    asked = shim.boottime_ns()
    bench.sandboxes.stop(lease_id, 700)
    state = bench.exited(lease_id)
    assert state.record.reason == "STOPPED"
    assert 650 < (state.record.ended_boottime_ns - asked) / 1e6 < 1700


def test_kill_is_at_once(bench):
    lease_id = bench.start(IGNORES)
    bench.says(lease_id, "up")
    asked = shim.boottime_ns()
    bench.sandboxes.kill(lease_id)
    state = bench.exited(lease_id)
    assert (state.record.ended_boottime_ns - asked) / 1e6 < 500


@pytest.mark.parametrize("span_ms", [0, -5000])
def test_a_dead_deadline_never_starts(bench, span_ms):
    lease_id = bench.start("echo ran", span_ms=span_ms)
    state = bench.exited(lease_id)
    assert (state.record.reason, state.record.started) == ("DEADLINE", False)
    assert state.started_boottime_ns == 0
    assert bench.log(lease_id) == ""


def test_another_boots_deadline_is_void(bench):
    lease_id = bench.start(IGNORES)
    bench.says(lease_id, "up")
    ahead = shim.boottime_ns() + 3_600_000_000_000
    bench.sandboxes.extend(lease_id, Deadline("another-boot", ahead, ahead, 0))
    assert bench.exited(lease_id, 3).record.reason == "DEADLINE"


def test_the_raw_clock_ends_it_too(bench):
    ends = Deadline.after(60_000, 0)
    lease_id = bench.start(IGNORES)
    bench.says(lease_id, "up")
    raw = shim.raw_ns() + 300_000_000
    bench.sandboxes.extend(lease_id, Deadline(ends.boot_id, ends.boottime_ns, raw, 0))
    assert bench.exited(lease_id, 3).record.reason == "DEADLINE"


def _shim_pid(bench, lease_id) -> int:
    return json.loads((bench.folder(lease_id) / "shim.json").read_text())["pid"]


def _init_pid(bench, lease_id) -> tuple[int, int]:
    started = json.loads((bench.folder(lease_id) / "started.json").read_text())
    return started["init_pid"], started["init_ticks"]


def _guards(pid: int) -> list[int]:
    """Children of the shim in a session of their own: the guard."""
    found = shim.read_text(f"/proc/{pid}/task/{pid}/children").split()
    return [int(child) for child in found if os.getsid(int(child)) == int(child)]


def test_a_shim_killed_takes_its_sandbox_along(bench):
    lease_id = bench.start("setsid sleep 300 & " + IGNORES)
    bench.says(lease_id, "up")
    pid, ticks = _init_pid(bench, lease_id)
    os.kill(_shim_pid(bench, lease_id), signal.SIGKILL)
    state = bench.exited(lease_id, 10)
    wait_for(lambda: shim.start_ticks(pid) != ticks or shim.state_letter(pid) in "ZX", 5)
    wait_for((bench.folder(lease_id) / "exit.json").exists, 10)
    state = bench.exited(lease_id)
    assert state.record.reason == "SHIM_LOST"
    assert state.record.clean
    assert state.started_boottime_ns > 0


def test_a_guard_killed_is_replaced_and_the_new_one_guards(bench):
    lease_id = bench.start(IGNORES)
    bench.says(lease_id, "up")
    keeper = _shim_pid(bench, lease_id)
    pid, ticks = _init_pid(bench, lease_id)
    first = [guard for guard in _guards(keeper) if guard != pid]
    os.kill(first[-1], signal.SIGKILL)
    wait_for(
        lambda: [
            guard
            for guard in _guards(keeper)
            if guard not in (*first, pid) and shim.state_letter(guard) == "S"
        ]
    )
    bench.running(lease_id)
    os.kill(keeper, signal.SIGKILL)
    wait_for((bench.folder(lease_id) / "exit.json").exists, 10)
    assert shim.start_ticks(pid) != ticks or shim.state_letter(pid) in "ZX"


def test_the_log_is_capped(bench):
    record, log = bench.run("yes 0123456789 | head -c 3000000; exit 4", log_limit_bytes=100_000)
    assert record.exit_code == 4
    assert record.log_truncated
    assert 100_000 < len(log) < 100_200
    assert "the log is cut here" in log[-200:]


def test_a_full_work_folder_ends_the_task(bench):
    script = "i=0; while :; do i=$((i+1)); head -c 200000 /dev/zero > f$i; done"
    record, _log = bench.run(script, disk_bytes=2_000_000)
    assert record.reason == "DISK_QUOTA"
    assert "the limit is 2000000 bytes" in record.message


def test_too_many_files_end_the_task(bench):
    script = "i=0; while :; do i=$((i+1)); : > f$i; done"
    record, _log = bench.run(script, disk_inodes=300)
    assert record.reason == "DISK_QUOTA"


def test_one_file_cannot_exceed_the_disk(bench):
    record, _log = bench.run("head -c 900000 /dev/zero > f; ls -s f; exit 5", disk_bytes=400_000)
    assert record.reason in ("EXITED", "DISK_QUOTA")
    assert (bench.folder(bench.sandboxes.list()[-1]) / "work/f").stat().st_size <= 400_000


def test_remove_keeps_outputs_and_records(bench):
    lease_id = bench.start(
        "mkdir -p out/deep junk; echo model > out/deep/m; echo x > junk/x; ln -s /etc/shadow link",
        keep=("out", "link"),
    )
    bench.exited(lease_id)
    bench.sandboxes.remove(lease_id)
    folder = bench.folder(lease_id)
    left = sorted(str(path.relative_to(folder / "work")) for path in (folder / "work").rglob("*"))
    assert left == ["out", "out/deep", "out/deep/m"]
    assert (folder / "log").exists()
    assert (folder / "exit.json").exists()
    assert isinstance(bench.sandboxes.inspect(lease_id), Exited)


def test_remove_refuses_what_runs(bench):
    lease_id = bench.start(IGNORES)
    bench.says(lease_id, "up")
    with pytest.raises(Precondition):
        bench.sandboxes.remove(lease_id)


def test_unknown_lease_is_absent(bench):
    assert isinstance(bench.sandboxes.inspect("ls-nobody"), Absent)


def test_files_of_the_job_are_there(bench):
    work: Path = bench.sandboxes.prepare("ls-files")
    (work / "train.txt").write_text("digits")
    from gridlease_agent.runtimes.spec import SandboxSpec

    spec = SandboxSpec("ls-files", ("/bin/sh", "-c", "cat train.txt; echo more >> train.txt"))
    bench.sandboxes.start("ls-files", spec, Deadline.after(20_000, 0))
    assert bench.exited("ls-files").record.exit_code == 0
    assert bench.log("ls-files") == "digits"
    assert (work / "train.txt").read_text() == "digitsmore\n"
