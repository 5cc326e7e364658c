"""What the end of a lease means for its job."""

import pytest
from gridlease_scheduler.domain.ends import Member, Patience, ended, task_end
from gridlease_scheduler.domain.job import JobState
from gridlease_scheduler.domain.lease import Cause, Exit, Lease, State

RUNNING, STOPPING = JobState.RUNNING, JobState.STOPPING


def lease(cause, end=None, attempt=1):
    return Lease("l", "t", attempt, "n", (), state=State.CLOSED, cause=cause, exit=end)


@pytest.mark.parametrize(
    ("state", "cause", "end", "result", "code"),
    [
        (RUNNING, Cause.EXITED, Exit(0, "EXITED", 5), JobState.SUCCEEDED, "EXITED"),
        (RUNNING, Cause.EXITED, Exit(7, "EXITED"), JobState.FAILED, "EXITED"),
        (RUNNING, Cause.EXITED, Exit(137, "OOM_KILLED"), JobState.FAILED, "OOM_KILLED"),
        (RUNNING, Cause.EXITED, Exit(143, "MAX_DURATION"), JobState.FAILED, "MAX_DURATION"),
        (RUNNING, Cause.EXITED, Exit(143, "IDLE"), JobState.CANCELLED, "IDLE"),
        (STOPPING, Cause.STOPPED, Exit(143, "IDLE"), JobState.CANCELLED, "CANCELLED"),
        (RUNNING, Cause.EXITED, Exit(1, "BUDGET_EXHAUSTED"), JobState.FAILED, "BUDGET_EXHAUSTED"),
        (RUNNING, Cause.EXITED, Exit(-1, "START_LOST"), JobState.PENDING, "START_LOST"),
        (RUNNING, Cause.EXITED, Exit(-1, "NODE_REBOOT"), JobState.PENDING, "NODE_REBOOT"),
        (RUNNING, Cause.EXITED, Exit(137, "DEADLINE"), JobState.PENDING, "DEADLINE"),
        (RUNNING, Cause.NODE_LOST, None, JobState.PENDING, "NODE_LOST"),
        (RUNNING, Cause.NODE_LOST, Exit(-1, "START_LOST"), JobState.PENDING, "START_LOST"),
        (RUNNING, Cause.NODE_LOST, Exit(143, "STOPPED"), JobState.PENDING, "NODE_LOST"),
        # It was given up, and had ended by itself: its own end counts.
        (RUNNING, Cause.NODE_LOST, Exit(0, "EXITED"), JobState.SUCCEEDED, "EXITED"),
        (RUNNING, Cause.NODE_LOST, Exit(2, "EXITED"), JobState.FAILED, "EXITED"),
        (RUNNING, Cause.PREEMPTED, Exit(143, "STOPPED"), JobState.PENDING, "PREEMPTED"),
        (STOPPING, Cause.STOPPED, Exit(143, "STOPPED"), JobState.CANCELLED, "CANCELLED"),
        (STOPPING, Cause.STOPPED, None, JobState.CANCELLED, "CANCELLED"),
        (STOPPING, Cause.NODE_LOST, None, JobState.CANCELLED, "CANCELLED"),
    ],
)
def test_each_end_has_its_meaning(state, cause, end, result, code):
    member = Member(0, lease(cause, end))
    got = ended(state, [member], Patience(3))
    assert (got.state, got.reason.code) == (result, code)
    assert got.reason.message
    assert task_end(member).ran_ns == (end.ran_ns if end else 0)


def test_the_last_attempt_fails():
    got = ended(RUNNING, [Member(0, lease(Cause.NODE_LOST, attempt=3))], Patience(3))
    assert (got.state, got.reason.code) == (JobState.FAILED, "NODE_LOST")
    assert "max_attempts" in got.reason.hint
