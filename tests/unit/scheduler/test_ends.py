"""What the ends of a gang mean together: exhaustive for small gangs, random for larger ones."""

import itertools
import random

import pytest
from gridlease_scheduler.domain.ends import (
    GANG_ENDED,
    RESIZED,
    Kind,
    Member,
    Patience,
    ended,
    follow,
    kind,
    notice_missed_ms,
    task_end,
)
from gridlease_scheduler.domain.job import JobState, Reason
from gridlease_scheduler.domain.lease import Cause, Exit, Lease, Phase, State
from hypothesis import given
from hypothesis import strategies as st

RUNNING, STOPPING = JobState.RUNNING, JobState.STOPPING
OWN = {
    "done": (Cause.EXITED, Exit(0, "EXITED", 5)),
    "failed": (Cause.EXITED, Exit(3, "EXITED", 5)),
    "oom": (Cause.EXITED, Exit(137, "OOM_KILLED", 5)),
    "lost": (Cause.NODE_LOST, None),
    "reboot": (Cause.EXITED, Exit(-1, "NODE_REBOOT")),
    "late": (Cause.EXITED, Exit(137, "DEADLINE", 5)),
    "preempted": (Cause.PREEMPTED, Exit(143, "STOPPED", 5)),
    "drained": (Cause.DRAINED, Exit(143, "STOPPED", 5)),
}
PLATFORM = {"lost", "reboot", "late", "preempted", "drained"}


def lease(index, cause, end, *, attempt=1, phase=Phase.CLEAN):
    return Lease(
        f"l{index}", f"t{index}", attempt, f"n{index}", (), state=State.CLOSED, cause=cause,
        notice_ms=30_000, phase=phase, exit=end,
    )  # fmt: skip


def member(index, way, stop="", attempt=1):
    return Member(index, lease(index, *OWN[way], attempt=attempt), Reason(stop))


def followed(index, cause, end, phase=Phase.CLEAN):
    return Member(index, lease(index, cause, end, phase=phase), Reason(GANG_ENDED, "so it is."))


@pytest.mark.parametrize("ways", list(itertools.product(OWN, repeat=3)))
def test_each_three_ends_have_one_meaning_in_any_order(ways):
    members = [member(index, way) for index, way in enumerate(ways)]
    got = [ended(RUNNING, order, Patience(3)) for order in itertools.permutations(members)]
    assert all(each == got[0] for each in got)
    if set(ways) & PLATFORM:
        assert got[0].state is JobState.PENDING
    elif set(ways) == {"done"}:
        assert got[0].state is JobState.SUCCEEDED
    else:
        assert got[0].state is JobState.FAILED
        first = next(index for index, way in enumerate(ways) if way != "done")
        assert f"Task {first} of 3" in got[0].reason.message


@pytest.mark.parametrize("ways", list(itertools.product(OWN, repeat=2)))
def test_a_stop_by_the_tenant_cancels_whatever_the_ends(ways):
    members = [member(index, way) for index, way in enumerate(ways)]
    assert ended(STOPPING, members, Patience(3)).state is JobState.CANCELLED
    stopped = Member(2, lease(2, Cause.STOPPED, Exit(143, "STOPPED")))
    assert ended(RUNNING, [*members, stopped], Patience(3)).state is JobState.CANCELLED


@pytest.mark.parametrize(
    ("cause", "end", "phase", "what"),
    [
        (Cause.EXITED, Exit(143, "STOPPED"), Phase.CLEAN, Kind.FOLLOWED),
        (Cause.EXITED, Exit(1, "EXITED"), Phase.CLEAN, Kind.FOLLOWED),
        (Cause.EXITED, Exit(137, "DEADLINE"), Phase.CLEAN, Kind.FOLLOWED),
        (Cause.EXITED, Exit(0, "EXITED"), Phase.CLEAN, Kind.DONE),
        (Cause.EXITED, Exit(-1, "NODE_REBOOT"), Phase.CLEAN, Kind.AGAIN),
        (Cause.EXITED, None, Phase.STARTING, Kind.AGAIN),
        (Cause.EXITED, None, Phase.UNSEEN, Kind.FOLLOWED),
        (Cause.NODE_LOST, Exit(143, "STOPPED"), Phase.CLEAN, Kind.AGAIN),
        (Cause.NODE_LOST, None, Phase.UNSEEN, Kind.AGAIN),
        (Cause.NODE_LOST, Exit(2, "EXITED"), Phase.CLEAN, Kind.FAILED),
    ],
)
def test_a_member_that_was_told_to_end_is_no_failure_of_its_own(cause, end, phase, what):
    assert kind(followed(1, cause, end, phase)) is what


def test_a_failure_is_the_jobs_own_and_names_who_failed_first():
    members = [followed(0, Cause.EXITED, Exit(143, "STOPPED")), member(1, "failed")]
    got = ended(RUNNING, members, Patience(3))
    assert (got.state, got.reason.code) == (JobState.FAILED, "EXITED")
    assert got.reason.message == "Task 1 of 2: The task exited with code 3."
    assert task_end(members[0]).reason.code == GANG_ENDED


def test_a_silent_node_behind_a_failure_places_the_gang_again():
    # The others' connections broke first; that their peer's node had died was not known yet.
    members = [followed(0, Cause.EXITED, None, Phase.STARTING), member(1, "failed")]
    got = ended(RUNNING, members, Patience(3))
    assert (got.state, got.reason.code) == (JobState.PENDING, "NODE_LOST")


def test_the_others_are_told_to_end_once_one_did_not_finish():
    assert follow([member(0, "done")]) is None
    assert follow([member(0, "done"), member(1, "failed")])[0] is Cause.EXITED
    cause, reason = follow([member(2, "reboot")])
    assert (cause, reason.code) == (Cause.NODE_LOST, GANG_ENDED)
    assert reason.message == (
        "Task 2 ended because its node was restarted; all of them are placed again."
    )
    assert follow([member(0, "drained")])[0] is Cause.DRAINED
    assert follow([Member(0, lease(0, Cause.STOPPED, None))]) is None


def test_evictions_are_not_counted_against_the_attempts():
    fifth = member(0, "preempted", "PREEMPTED", attempt=5)
    assert ended(RUNNING, [fifth], Patience(3, evicted=5)).state is JobState.PENDING
    assert ended(RUNNING, [fifth], Patience(3, evicted=2)).state is JobState.FAILED
    lost = member(0, "lost", attempt=4)
    assert ended(RUNNING, [lost], Patience(3, evicted=1)).state is JobState.FAILED
    assert ended(RUNNING, [lost], Patience(3, evicted=2)).state is JobState.PENDING


def test_a_job_that_asked_not_to_wait_again_fails_by_preemption_alone():
    impatient = Patience(3, evicted=1, requeue=False)
    got = ended(RUNNING, [member(0, "preempted", "PREEMPTED")], impatient)
    assert (got.state, got.reason.code) == (JobState.FAILED, "PREEMPTED")
    assert "on_preemption" in got.reason.hint
    for way, stop in (("drained", "DRAINED"), ("lost", ""), ("preempted", RESIZED)):
        assert ended(RUNNING, [member(0, way, stop)], impatient).state is JobState.PENDING


@pytest.mark.parametrize(
    ("cause", "end", "given_ms", "missed"),
    [
        (Cause.PREEMPTED, Exit(137, "STOPPED", 9), 30_100, 0),
        (Cause.PREEMPTED, Exit(137, "STOPPED", 9), 12_000, 18_000),
        (Cause.DRAINED, Exit(137, "DEADLINE", 9), 1_000, 29_000),
        (Cause.PREEMPTED, Exit(143, "STOPPED", 9), 12_000, 0),  # it answered the warning
        (Cause.PREEMPTED, Exit(0, "EXITED", 9), 12_000, 0),
        (Cause.PREEMPTED, Exit(137, "OOM_KILLED", 9), 12_000, 0),
        (Cause.PREEMPTED, Exit(137, "STOPPED", 0), 12_000, 0),  # it never ran
        (Cause.PREEMPTED, None, None, 30_000),
        (Cause.NODE_LOST, None, None, 0),
        (Cause.STOPPED, Exit(137, "STOPPED", 9), 12_000, 0),
    ],
)
def test_a_warning_that_was_cut_short_is_owed(cause, end, given_ms, missed):
    assert notice_missed_ms(lease(0, cause, end), given_ms) == missed


class Gang:
    """What closing does with a gang whose members end by themselves, in some order."""

    def __init__(self, ways, rng):
        self.ways, self.rng = dict(enumerate(ways)), rng
        self.ended, self.told = {}, None

    def run(self):
        todo = list(self.ways)
        self.rng.shuffle(todo)
        for index in todo:
            if self.told is not None and self.rng.random() < 0.7:
                cause, reason = self.told
                end = self.rng.choice([Exit(143, "STOPPED", 4), Exit(1, "EXITED", 4)])
                if cause is not Cause.EXITED:
                    end = Exit(143, "STOPPED", 4)
                self.ended[index] = Member(index, lease(index, cause, end), reason)
            else:
                self.ended[index] = member(index, self.ways[index])
            if self.told is None:
                self.told = follow(list(self.ended.values()))
        members = list(self.ended.values())
        self.rng.shuffle(members)
        return ended(RUNNING, members, Patience(3))


@given(
    ways=st.lists(st.sampled_from(sorted(OWN)), min_size=1, max_size=8),
    seeds=st.lists(st.integers(0, 2**32), min_size=4, max_size=4),
)
def test_the_state_does_not_depend_on_the_order_of_ends(ways, seeds):
    """With one kind of trouble: which of two troubles comes first decides which one is met."""
    troubles = {way for way in ways if way != "done"}
    own = troubles - PLATFORM
    states = {Gang(ways, random.Random(seed)).run().state for seed in seeds}
    if not troubles:
        assert states == {JobState.SUCCEEDED}
    elif not own:
        assert states == {JobState.PENDING}
    elif own == troubles:
        assert states == {JobState.FAILED}
    else:
        assert states <= {JobState.PENDING, JobState.FAILED}
