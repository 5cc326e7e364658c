"""Sandboxes made ahead: they wait, follow their folder's new name, and end when they are over."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest
from gridlease_agent import shim
from gridlease_agent.isolate import cgroups
from gridlease_agent.runtimes.spec import SandboxSpec
from gridlease_agent.sandbox import Deadline, Exited, Running, Starting

from .conftest import wait_for

CREATED = ("/bin/sh", "-c", "exec /bin/sh /run/gridlease/launch")
FROZEN = (
    "/bin/sh",
    "-c",
    "mkdir -p .gridlease; echo warm; : > .gridlease/warm; read go < /run/gridlease/go;"
    " echo went; exit 6",
)


@pytest.fixture
def warm(crun_bench):
    if not crun_bench.sandboxes.keeper.holds:
        pytest.skip(crun_bench.sandboxes.keeper.why)
    return crun_bench


def _make(bench, warm_id="warm-1", argv=CREATED, hold="created", span_ms=60_000, **parts):
    spec = SandboxSpec(warm_id, argv, hold=hold, **parts)
    notice = bench.sandboxes.prepare(warm_id).parent / "notice"
    if hold == "frozen":
        os.mkfifo(notice / "go", 0o644)
    bench.sandboxes.start(warm_id, spec, Deadline.after(span_ms, 0))
    return bench.folder(warm_id)


def _held(folder):
    path = folder / "held.json"
    wait_for(lambda: path.exists() or (folder / "exit.json").exists())
    return json.loads(path.read_text())


def _let_go(bench, folder, lease_id, script, span_ms=60_000, grace_ms=0):
    new = bench.folder(lease_id)
    folder.rename(new)
    (new / "notice/launch").write_text(script)
    bench.sandboxes.extend(lease_id, Deadline.after(span_ms, grace_ms))
    shim.write_json(str(new / "release.json"), {"lease_id": lease_id})
    bench.sandboxes.poke(lease_id)
    return new


def test_a_created_one_waits_and_becomes_a_leases(warm):
    folder = _make(warm)
    held = _held(folder)
    assert shim.start_ticks(held["init_pid"]) == held["init_ticks"]
    assert isinstance(warm.sandboxes.inspect("warm-1"), Starting)
    assert not warm.sandboxes.runs("warm-1")
    new = _let_go(warm, folder, "ls-1", "echo of a lease; echo $PWD > where; exit 4")
    record = warm.exited("ls-1").record
    assert (record.exit_code, record.reason, record.started) == (4, "EXITED", True)
    assert record.clean
    assert warm.log("ls-1") == "of a lease\n"
    assert (new / "work/where").read_text() == "/work\n"
    assert not folder.exists()


def test_what_was_let_go_is_an_ordinary_task(warm):
    folder = _make(warm)
    _held(folder)
    script = "trap 'echo told; exit 9' TERM; echo up; while :; do sleep 0.05; done"
    _let_go(warm, folder, "ls-2", script)
    warm.running("ls-2")
    warm.says("ls-2", "up")
    warm.sandboxes.stop("ls-2", 20_000)
    state = warm.exited("ls-2")
    assert (state.record.exit_code, state.record.reason) == (9, "STOPPED")
    assert "told" in warm.log("ls-2")


def test_a_frozen_one_stands_still_until_it_is_let_go(warm):
    folder = _make(warm, argv=FROZEN, hold="frozen")
    held = _held(folder)
    counted = cgroups.counters(warm.cgroup("warm-1"))
    assert counted is not None
    assert "warm" in warm.log("warm-1")
    assert isinstance(warm.sandboxes.inspect("warm-1"), Starting)
    again = cgroups.counters(warm.cgroup("warm-1"))
    assert again is not None
    assert again.cpu_ns == counted.cpu_ns
    assert shim.start_ticks(held["init_pid"]) == held["init_ticks"]
    new = _let_go(warm, folder, "ls-3", "")
    warm.running("ls-3")
    with (new / "notice/go").open("w") as go:
        go.write("g\n")
    assert warm.exited("ls-3").record.exit_code == 6
    assert warm.log("ls-3") == "warm\nwent\n"


@pytest.mark.parametrize(("argv", "hold"), [(CREATED, "created"), (FROZEN, "frozen")])
def test_one_that_nobody_takes_ends_at_its_deadline(warm, argv, hold):
    folder = _make(warm, argv=argv, hold=hold, span_ms=1200)
    _held(folder)
    record = warm.exited("warm-1").record
    assert (record.reason, record.started, record.clean) == ("DEADLINE", False, True)
    assert shim.Cgroup(warm.cgroup("warm-1")).left() == []


def test_a_held_one_is_killed_at_once(warm):
    folder = _make(warm, argv=FROZEN, hold="frozen")
    _held(folder)
    warm.sandboxes.kill("warm-1")
    assert warm.exited("warm-1", 5).record.reason == "STOPPED"


def test_a_grant_that_is_over_lets_nothing_go(warm):
    folder = _make(warm)
    _held(folder)
    new = _let_go(warm, folder, "ls-4", "echo ran", span_ms=-1)
    record = warm.exited("ls-4").record
    assert (record.reason, record.started) == ("DEADLINE", False)
    assert not (new / "started.json").exists()
    assert warm.log("ls-4") == ""


@pytest.mark.parametrize(("argv", "hold"), [(CREATED, "created"), (FROZEN, "frozen")])
def test_a_held_ones_keeper_takes_it_along_under_its_new_name(warm, argv, hold):
    folder = _make(warm, argv=argv, hold=hold)
    held = _held(folder)
    new = warm.folder("ls-5")
    folder.rename(new)
    os.kill(json.loads((new / "shim.json").read_text())["pid"], signal.SIGKILL)
    wait_for((new / "exit.json").exists, 10)
    state = warm.sandboxes.inspect("ls-5")
    assert isinstance(state, Exited)
    assert (state.record.reason, state.record.started, state.record.clean) == (
        "SHIM_LOST",
        False,
        True,
    )
    pid, ticks = held["init_pid"], held["init_ticks"]
    assert shim.start_ticks(pid) != ticks or shim.state_letter(pid) in "ZX"


def test_crun_waits_where_the_keeper_expects_it(warm):
    """crun's own layout is no contract: where it changes, the keeper calls ``crun start``."""
    folder = _make(warm)
    _held(folder)
    own = json.loads((folder / "shim.json").read_text())["pid"]
    stage = json.loads((folder / "spec.json").read_text())["stage"]
    gate = Path(f"/proc/{own}/root{stage}/crun/warm-1/exec.fifo")
    assert gate.exists()
    gate.unlink()  # as if it lay somewhere else now
    _let_go(warm, folder, "ls-6", "echo ran")
    record = warm.exited("ls-6").record
    assert record.reason == "START_FAILED"
    assert "exec" in record.message or "fifo" in record.message


def test_release_is_at_once(warm):
    folder = _make(warm)
    _held(folder)
    began = time.monotonic()
    _let_go(warm, folder, "ls-7", "echo here; sleep 30")
    warm.says("ls-7", "here", 5)
    assert time.monotonic() - began < 2
    assert isinstance(warm.sandboxes.inspect("ls-7"), Running)
