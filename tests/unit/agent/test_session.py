"""How many sessions there may be, and when a task without any is idle."""

import pytest
from gridlease_agent.domain.session import Limits, Visits, admitted, idle, left
from gridlease_agent.domain.spool import Phase, Row
from gridlease_agent.domain.task import Task
from gridlease_kernel.faults import Exhausted

SECOND = 1_000_000_000
LIMITS = Limits(per_lease=2, per_node=3)


def test_sessions_are_counted_by_lease_and_by_node():
    visits = {}
    for lease_id in ("a", "a", "b"):
        visits[lease_id] = admitted(LIMITS, visits, lease_id)
    for lease_id in ("a", "b", "c"):
        with pytest.raises(Exhausted) as caught:
            admitted(LIMITS, visits, lease_id)
        assert caught.value.reason == "TOO_MANY_SESSIONS"
    visits["a"] = left(visits["a"], 7)
    assert visits["a"] == Visits(1, 7)
    assert admitted(LIMITS, visits, "a").open == 2


def row(ready_ns):
    return Row("a", (), "boot", 0, 60_000, Phase.STARTING, ready_ns=ready_ns)


@pytest.mark.parametrize(
    ("idle_stop_ms", "ready_s", "visits", "since_s", "now_s", "by_s"),
    [
        (0, 1, Visits(), 0, 10**6, None),  # never asked for
        (5_000, None, Visits(), 0, 10**6, None),  # has not begun
        (5_000, 1, Visits(1, 2 * SECOND), 0, 10**6, None),  # somebody is there
        (5_000, 1, Visits(), 0, 5, None),
        (5_000, 1, Visits(), 0, 6, 8),
        (5_000, 1, Visits(0, 4 * SECOND), 0, 8, None),
        (5_000, 1, Visits(0, 4 * SECOND), 0, 9, 11),
        (5_000, 1, Visits(), 7, 11, None),  # the agent began at 7 s
        (5_000, 1, Visits(), 7, 12, 14),
    ],
)
def test_a_task_is_idle_from_the_end_of_the_last_session(
    idle_stop_ms, ready_s, visits, since_s, now_s, by_s
):
    task = Task("a", "projects/p/jobs/j/tasks/0", "t", notice_ms=2_000, idle_stop_ms=idle_stop_ms)
    ready_ns = None if ready_s is None else ready_s * SECOND
    over = idle(row(ready_ns), task, visits, since_s * SECOND, now_s * SECOND)
    assert (over and over.by_ns) == (by_s and by_s * SECOND)
