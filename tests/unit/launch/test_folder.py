"""Who holds a state folder: that very process, never another that has its pid by now."""

import json
import os

import pytest
from gridlease_kernel.faults import Precondition
from gridlease_launch.backoff import FIRST_MS, LAST_MS, STEADY_MS, Backoff
from gridlease_launch.folder import StateFolder, Supervisor


@pytest.fixture
def folder(tmp_path):
    one = StateFolder(tmp_path / "state")
    one.make()
    return one


def test_a_live_supervisor_is_found(folder):
    assert folder.supervisor() is None
    who = Supervisor(os.getpid(), "127.0.0.1:1", ready=True)
    folder.write_supervisor(who)
    assert folder.supervisor() == who
    folder.forget_supervisor()
    assert folder.supervisor() is None


def test_a_pid_that_is_anothers_by_now_is_nobody(folder):
    folder.write_supervisor(Supervisor(os.getpid(), "127.0.0.1:1", ready=True))
    facts = json.loads(folder.record.read_text())
    folder.record.write_text(json.dumps({**facts, "start_ticks": facts["start_ticks"] - 1}))
    assert folder.supervisor() is None


def test_a_folder_is_held_once(folder):
    with folder.held(), pytest.raises(Precondition) as caught, folder.held():
        pass
    assert caught.value.reason == "ALREADY_UP"


def test_the_wait_doubles_up_to_a_bound_and_is_reset_by_a_long_life():
    backoff, waits = Backoff(), []
    for _ in range(10):
        waits.append(backoff.wait_ms)
        backoff = backoff.after_death(lived_ms=1)
    assert waits[:3] == [FIRST_MS, 2 * FIRST_MS, 4 * FIRST_MS]
    assert waits[-1] == LAST_MS
    assert backoff.after_death(STEADY_MS).wait_ms == FIRST_MS
