"""What a task went through on this node, told as spans of the trace that submitted it."""

from __future__ import annotations

from gridlease_kernel.clock import Clock

from gridlease_agent.domain.spool import ExitRecord, Row
from gridlease_agent.domain.task import Task
from gridlease_agent.ports import SpanTeller


class TaskSpans:
    """Measures on the boot's clock, and tells wall time: a step of that moves no span's length."""

    def __init__(self, told: SpanTeller, clock: Clock) -> None:
        self._told = told
        self._clock = clock

    def now_ns(self) -> int:
        """A boottime, to begin a span with."""
        return self._clock.boottime_ns()

    def prepared(self, task: Task, began_ns: int, error: str = "") -> None:
        """A task's files and environment are ready, or never will be."""
        self._tell("task.prepare", task, began_ns, self._clock.boottime_ns(), {}, error)

    def ran(self, row: Row, task: Task | None, record: ExitRecord | None) -> None:
        """A task that ran has ended; one that was never released did not run."""
        if task is None or record is None or record.boot_id != row.boot_id:
            return
        ready_ns = record.ready_ns if record.ready_ns is not None else row.ready_ns
        if ready_ns is None:
            return
        facts = {"gridlease.exit_code": str(record.code), "gridlease.reason": record.reason}
        error = f"exit code {record.code}" if record.code else ""
        self._tell("task.run", task, ready_ns, record.ended_ns, facts, error)

    def _tell(
        self, name: str, task: Task, began_ns: int, ended_ns: int, facts: dict[str, str], error: str
    ) -> None:
        offset_ns = int(self._clock.wall().timestamp() * 1e9) - self._clock.boottime_ns()
        about = {"gridlease.lease": task.lease_id, "gridlease.job": task.job}
        self._told.record(
            name,
            task.traceparent,
            start_unix_ns=offset_ns + began_ns,
            end_unix_ns=offset_ns + ended_ns,
            attributes={**about, **facts},
            error=error,
        )
