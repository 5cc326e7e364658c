"""Jobs whose number of tasks the slow path may change, and what their tasks last told."""

from __future__ import annotations

from dataclasses import dataclass

from gridlease_scheduler.domain.job import Needs, Reason


@dataclass(frozen=True, slots=True)
class Report:
    """One task's last word on its training or its load; 0 = not told.

    ``batch``: samples of one step over the whole job. ``squared``: squared norm of the gradient;
    ``variance``: of the gradient of one sample. ``age_ms``: since it was told.
    """

    index: int
    age_ms: int
    steps: int = 0
    steps_total: int = 0
    step_ns: int = 0
    batch: int = 0
    squared: float = 0.0
    variance: float = 0.0
    in_flight_milli: int = 0


@dataclass(frozen=True, slots=True)
class LoadPolicy:
    """How a service follows its load. ``least`` 0: it may rest."""

    least: int
    most: int
    target: int
    idle_after_ms: int


@dataclass(frozen=True, slots=True)
class Flexible:
    """A job that waits or runs.

    ``tasks``: of its attempt, or wanted for its next one. ``app``: jobs with the same are alike.
    ``batches``: the range of global batch sizes; zeros = not said. ``ran_ms``: since all tasks of
    this attempt were heard to run; 0 = not yet. ``start_ms``: how long that took. ``queued_ms``:
    when it last came to the queue.
    """

    job: str
    tenant: str
    project: str
    running: bool
    attempt: int
    tasks: int
    tasks_min: int
    tasks_max: int
    needs: Needs
    app: str
    batches: tuple[int, int] = (0, 0)
    load: LoadPolicy | None = None
    asleep: bool = False
    ran_ms: int = 0
    start_ms: int = 0
    queued_ms: int = 0
    notice_ms: int = 0
    min_runtime_ms: int = 0
    reports: tuple[Report, ...] = ()


@dataclass(frozen=True, slots=True)
class Resize:
    """A job is to have another number of tasks; 0 = none until it is woken.

    ``attempt``: it holds for this one only. ``running``: it is told to end first.
    """

    job: str
    attempt: int
    tasks: int
    running: bool
    reason: Reason
