"""What a task's spans say: boottimes become wall time, and a failure is named."""

from gridlease_agent.domain.spool import ExitRecord, Row
from gridlease_agent.domain.task import Task
from gridlease_agent.spans import TaskSpans
from gridlease_kernel.clock import ManualClock

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
TASK = Task("l-1", "projects/p/jobs/j/tasks/0", "t", traceparent=PARENT)
ROW = Row("l-1", (), "boot", 0, 1_000, ready_ns=10)


class Told:
    def __init__(self):
        self.spans = []

    def record(self, name, traceparent, **rest):
        self.spans.append((name, traceparent, rest))


def test_a_run_is_told_with_its_times_and_how_it_ended():
    told, clock = Told(), ManualClock()
    TaskSpans(told, clock).ran(ROW, TASK, ExitRecord("boot", 3, "EXITED", 10, 2_010))
    ((name, parent, rest),) = told.spans
    assert (name, parent) == ("task.run", PARENT)
    assert rest["end_unix_ns"] - rest["start_unix_ns"] == 2_000
    wall_ns = int(clock.wall().timestamp() * 1e9)
    assert rest["start_unix_ns"] == wall_ns - clock.boottime_ns() + 10
    assert rest["attributes"]["gridlease.lease"] == "l-1"
    assert rest["attributes"]["gridlease.job"] == "projects/p/jobs/j"
    assert rest["error"] == "exit code 3"


def test_what_never_ran_in_this_boot_is_not_told():
    told = Told()
    spans = TaskSpans(told, ManualClock())
    spans.ran(ROW, TASK, None)
    spans.ran(ROW, None, ExitRecord("boot", 0, "EXITED", 10, 20))
    spans.ran(ROW, TASK, ExitRecord("earlier", 0, "EXITED", 10, 20))
    assert told.spans == []


def test_a_failed_preparation_says_why():
    told = Told()
    spans = TaskSpans(told, ManualClock())
    spans.prepared(TASK, spans.now_ns(), "no such bundle")
    spans.prepared(TASK, spans.now_ns())
    assert [(name, rest["error"]) for name, _, rest in told.spans] == [
        ("task.prepare", "no such bundle"),
        ("task.prepare", ""),
    ]
