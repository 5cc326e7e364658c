"""Emulated sandboxes answer as real ones do."""

from __future__ import annotations

import pytest
from gridlease_agent.noop import NoopSandboxes
from gridlease_agent.runtimes.spec import SandboxSpec
from gridlease_agent.sandbox import Absent, Deadline, Exited, Running, Sandboxes, SandboxRunner
from gridlease_kernel.clock import ManualClock
from gridlease_kernel.faults import Exists, Missing, Precondition


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def noop(clock):
    return NoopSandboxes(clock)


def _at(clock, seconds):
    now = clock.boottime_ns() + seconds * 1_000_000_000
    return Deadline("b", now, now, 0)


def _spec(seconds=10):
    return SandboxSpec("ls-1", ("x",), emulated_duration_ms=seconds * 1000)


def test_it_ends_by_itself(noop, clock):
    noop.start("ls-1", _spec(), _at(clock, 60))
    assert [one.lease_id for one in noop.look()] == ["ls-1"]
    clock.advance(9)
    state = noop.inspect("ls-1")
    assert isinstance(state, Running)
    with pytest.raises(Precondition):
        noop.remove("ls-1")
    clock.advance(5)
    over = noop.inspect("ls-1")
    assert isinstance(over, Exited)
    assert (over.record.reason, over.record.exit_code) == ("EXITED", 0)
    assert over.record.ended_boottime_ns - over.started_boottime_ns == 10_000_000_000
    noop.remove("ls-1")
    assert isinstance(noop.inspect("ls-1"), Absent)


def test_deadline_extension_and_stop(noop, clock):
    noop.start("ls-1", _spec(100), _at(clock, 5))
    with pytest.raises(Exists):
        noop.start("ls-1", _spec(), _at(clock, 5))
    noop.extend("ls-1", _at(clock, 50))
    clock.advance(20)
    assert isinstance(noop.inspect("ls-1"), Running)
    noop.stop("ls-1", 1000)
    noop.stop("ls-1", 9000)
    clock.advance(2)
    state = noop.inspect("ls-1")
    assert isinstance(state, Exited)
    assert state.record.reason == "STOPPED"
    noop.extend("ls-1", _at(clock, 500))
    assert isinstance(noop.inspect("ls-1"), Exited)


def test_the_deadline_ends_it(noop, clock):
    noop.start("ls-1", _spec(100), _at(clock, 5))
    clock.advance(6)
    state = noop.inspect("ls-1")
    assert isinstance(state, Exited)
    assert state.record.reason == "DEADLINE"


def test_a_lease_that_is_not_here(noop):
    with pytest.raises(Missing):
        noop.kill("ls-2")


def test_both_kinds_fit_the_same_port(noop, tmp_path):
    from gridlease_agent.runtimes.choose import Runtime

    runners: list[SandboxRunner] = [noop, Sandboxes(tmp_path, Runtime("crun", "/c", root=False))]
    assert [runner.look() for runner in runners] == [(), ()]
