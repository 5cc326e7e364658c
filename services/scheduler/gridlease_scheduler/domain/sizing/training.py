"""Which elastic training jobs should have more tasks now, or fewer?

``elastic`` decides over devices from goodput; here is what it looks at (jobs that have told of
their steps, and the devices that they hold or that nobody else could use), and what of its word is
done: only what a job gains or gives back on the chip that it runs on, in whole tasks, where it has
run long enough in this attempt, and only growth for which there is room. Nobody is stopped for it.

* Growth must pay for its devices too: far along a flat curve nobody goes, though they are free.
  For small gains of one job no other is restarted.
* Who waits comes first: where a job that waits could use a chip, nobody grows on it, and who has
  grown there gives back what is missing, down to its least.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from gridlease_scheduler.domain.job import Reason
from gridlease_scheduler.domain.node import Node
from gridlease_scheduler.domain.order.patience import Patience
from gridlease_scheduler.domain.snapshot import Pending, Running

from . import elastic
from .flexible import Flexible, Report, Resize
from .goodput import Batches, Gradient, Step, line, rows
from .lessons import Lessons, Row, Trainee
from .prospects import rates
from .seats import Held, Host
from .spare import Spare

_STEPS = 64  # kept of a job: configurations seen, the newest last
_FRESH = 0.3  # weight of a new report against those of the same configuration before
_LEAST_START_S = 5.0
_STALE_MS = 120_000  # a report that is older says nothing of how it goes now
_MOST_AT_ONCE = 8
_LEAST_GAIN = 0.1  # of goodput, by growing
_LEAST_RETURN = 0.25  # of what the devices that it has give, by each that is added
_NOTHING = 0.05  # of goodput: for so little nobody keeps twice the devices
_MUCH_MORE = 1.5  # times what it has: for so much growth of one job others give back

Chips = Callable[[Pending], Iterable[str]]


@dataclass(frozen=True, slots=True)
class Trial:
    """What one job has told: a mean step of each configuration, gradients by batch."""

    steps: tuple[Step, ...] = ()
    gradients: tuple[Gradient, ...] = ()
    batch: int = 0


@dataclass(frozen=True, slots=True)
class Diary:
    """What is learned in a term; a new leader learns it again from what is told to it."""

    trials: Mapping[str, Trial] = field(default_factory=dict)
    lessons: Lessons = field(default_factory=Lessons)


@dataclass(frozen=True, slots=True)
class TrainingRules:
    """``settle_ms``: a job is left alone for so long after it was heard to run."""

    settle_ms: int = 300_000
    policy: elastic.Policy = field(default_factory=elastic.Policy)


@dataclass(frozen=True, slots=True)
class Scene:
    """What a decision looks at besides the jobs. ``chips``: those that a waiting job could have."""

    nodes: Sequence[Node]
    running: Sequence[Running]
    waiting: Sequence[Pending]
    chips: Chips
    spare: Spare
    patience: Patience
    now_ms: int


def resizes(
    jobs: Sequence[Flexible], scene: Scene, diary: Diary, rules: TrainingRules
) -> tuple[tuple[Resize, ...], Diary]:
    """What should change, and what was learned."""
    training = [x for x in jobs if x.load is None and x.needs.accelerator is not None]
    if not training:
        return (), Diary(lessons=diary.lessons)
    names = {x.job for x in training}
    holdings = _holdings(x for x in scene.running if x.job in names)
    trials = {
        x.job: _told(diary.trials.get(x.job, Trial()), x, holdings[x.job])
        if x.running and x.job in holdings
        else diary.trials.get(x.job, Trial())
        for x in training
    }
    known = [x for x in training if x.running and x.job in holdings and trials[x.job].steps]
    missing = _missing(scene, training)
    hosts = _hosts(scene, {x.job for x in known}, missing)
    sizes = _sizes(scene.nodes)
    trainees = [_trainee(x, holdings[x.job], trials[x.job], sizes, scene.running) for x in known]
    at_s = scene.now_ms / 1e3
    found, lessons = elastic.decide(
        elastic.Snapshot(at_s, hosts, trainees), diary.lessons, rules.policy
    )
    wanted = [
        (x, holdings[x.job], _clear(x, trainee, found[x.job], lessons, rules))
        for x, trainee in zip(known, trainees, strict=True)
        if x.job in found and found[x.job].chip == holdings[x.job].chip
    ]
    by_name = {x.name: x for x in trainees}
    urgent = {chip for chip, n in missing.items() if n}
    urgent |= {held.chip for x, held, tasks in wanted if tasks >= _MUCH_MORE * x.tasks}
    wanted = [
        (x, held, n)
        if n > x.tasks or (n < x.tasks and held.chip in urgent)
        else (x, held, _enough(x, held, by_name[x.job], lessons, rules))
        for x, held, n in wanted
    ]
    return tuple(_applied(wanted, scene, rules)), Diary(trials, lessons)


def _clear(
    job: Flexible, trainee: Trainee, wish: Held, lessons: Lessons, rules: TrainingRules
) -> int:
    """How many tasks of a wish are worth a restart and their price, beyond what noise could say.

    Growth goes as far as all added devices together still give a quarter of what the present ones
    give, and a tenth more in all; else it stays.
    """
    assert trainee.held is not None
    count, chip, now = _count(job), wish.chip, trainee.held.devices
    known = rates(lessons, trainee, rules.policy.blind)
    per_s = known.get((chip, now), 0.0)
    if wish.devices <= now or not per_s:
        return wish.devices // count
    for devices in range(wish.devices // count * count, now, -count):
        gain = known.get((chip, devices), 0.0) / per_s - 1.0
        if gain >= max(_LEAST_GAIN, _LEAST_RETURN * (devices / now - 1.0)):
            return devices // count
    return job.tasks


def _enough(
    job: Flexible, held: Held, trainee: Trainee, lessons: Lessons, rules: TrainingRules
) -> int:
    """As many tasks as it has; but where half of them or fewer give it nearly the same, those."""
    count = _count(job)
    known = rates(lessons, trainee, rules.policy.blind)
    per_s = known.get((held.chip, held.devices), 0.0)
    for devices in range(trainee.least, held.devices // 2 + 1, count):
        if known.get((held.chip, devices), 0.0) * (1.0 + _NOTHING) >= per_s > 0.0:
            return devices // count
    return job.tasks


def _count(job: Flexible) -> int:
    assert job.needs.accelerator is not None
    return job.needs.accelerator.count


def _key(node_id: str, chip: str) -> str:
    return f"{node_id}/{chip}"


def _holdings(running: Iterable[Running]) -> dict[str, Held]:
    """What each job holds; jobs on several chips, or that are ending, are left out."""
    nodes: dict[str, dict[str, int]] = {}
    chips: dict[str, set[str]] = {}
    ending = set()
    for lease in running:
        held = lease.allocation
        if lease.closing:
            ending.add(lease.job)
        if held.device_ids:
            chips.setdefault(lease.job, set()).add(held.chip)
            mine = nodes.setdefault(lease.job, {})
            key = _key(lease.node_id, held.chip)
            mine[key] = mine.get(key, 0) + len(held.device_ids)
    return {
        job: Held(next(iter(chips[job])), tuple(sorted(mine.items())))
        for job, mine in nodes.items()
        if len(chips[job]) == 1 and job not in ending
    }


def _told(trial: Trial, job: Flexible, held: Held) -> Trial:
    """The newest report of its first task, taken into what was known."""
    report = next((x for x in job.reports if x.age_ms <= _STALE_MS), None)
    if report is None or not (report.step_ns and report.batch):
        return trial
    local = max(1, math.ceil(report.batch / held.devices))
    step = Step(held.chip, held.devices, len(held.nodes), local, report.step_ns / 1e9)
    alike = (x for x in trial.steps if replace(x, step_s=step.step_s) == step)
    same = next(alike, None)
    if same is not None:
        mean = same.step_s + (step.step_s - same.step_s) * _FRESH
        step = replace(step, step_s=mean)
    steps = (*(x for x in trial.steps if x is not same), step)[-_STEPS:]
    return Trial(steps, _gradients(trial, report, job), trial.batch or report.batch)


def _gradients(trial: Trial, report: Report, job: Flexible) -> tuple[Gradient, ...]:
    if not report.squared and not report.variance:
        return trial.gradients
    initial = job.batches[0] or trial.batch or report.batch
    new = Gradient(report.batch, report.squared, report.variance / initial)
    return (*(x for x in trial.gradients if x.batch != new.batch), new)[-_STEPS:]


def _exchange(steps: Sequence[Step]) -> tuple[Step, ...]:
    """Steps with their time of exchanging gradients, where steps of one device tell it.

    Reports give whole steps: what several devices take longer than one for the same local batch
    is exchange. Without a step of one device all of it counts as compute.
    """
    found = []
    for step in steps:
        alone = [x for x in steps if x.chip == step.chip and x.devices == 1]
        sync_s = 0.0
        if alone and step.devices > 1:
            compute_s = line([(x.local_batch, x.step_s) for x in alone]).at(step.local_batch)
            sync_s = min(step.step_s, max(0.0, step.step_s - compute_s))
        found.append(replace(step, sync_s=sync_s))
    return tuple(found)


def _trainee(
    job: Flexible,
    held: Held,
    trial: Trial,
    sizes: Mapping[str, tuple[int, int]],
    running: Iterable[Running],
) -> Trainee:
    count = _count(job)
    report = next(iter(job.reports), Report(0, 0))
    mine = [x for x in running if x.job == job.job]
    worked_ms = min((x.worked_ms for x in mine), default=0)
    # What is not saved is done again; a job that saves is taken to save once more when it is told.
    lost_ms = 0 if any(x.saved_ms for x in mine) else worked_ms
    restart_s = max(_LEAST_START_S, job.start_ms / 1e3) + lost_ms / 1e3
    total = report.steps_total
    return Trainee(
        name=job.job,
        app=job.app,
        age_s=worked_ms / 1e3,
        done=min(1.0, report.steps / total) if total else 0.0,
        held=held,
        restart_left_s=0.0 if job.ran_ms else restart_s,
        restart_s=restart_s,
        restarts=max(0, job.attempt - 1),
        device_s=worked_ms / 1e3 * held.devices,
        hint=job.tasks_min * count,
        least=job.tasks_min * count,
        most=job.tasks_max * count,
        seen=max(x.devices for x in trial.steps),
        rows=_rows(job, trial, sizes),
    )


def _rows(
    job: Flexible, trial: Trial, sizes: Mapping[str, tuple[int, int]]
) -> dict[str, tuple[Row, ...]]:
    """Goodput by chip: modelled where gradients were told, else only what was run."""
    initial = job.batches[0] or trial.batch
    if not trial.gradients:
        ran: dict[str, dict[int, Row]] = {}
        for x in trial.steps:
            per_s = x.local_batch * x.devices / initial / x.step_s
            ran.setdefault(x.chip, {})[x.devices] = Row(x.devices, x.nodes, per_s)
        return {chip: tuple(found[n] for n in sorted(found)) for chip, found in ran.items()}
    most = max(initial, job.batches[1] or initial)
    seen: dict[str, int] = {}
    for x in trial.steps:
        seen[x.chip] = max(seen.get(x.chip, 0), x.local_batch)
    batches = Batches(initial, most, 1, seen)
    choices = rows(_exchange(trial.steps), trial.gradients, batches, sizes)
    count = _count(job)
    return {
        chip: tuple(x.row for x in found if x.devices % count == 0)
        for chip, found in choices.items()
    }


def _sizes(nodes: Iterable[Node]) -> dict[str, tuple[int, int]]:
    """Devices a node, and nodes, of each chip."""
    found: dict[str, tuple[int, int]] = {}
    for node in nodes:
        for chip in {x.chip for x in node.devices}:
            each = sum(x.chip == chip for x in node.devices)
            most, number = found.get(chip, (0, 0))
            found[chip] = max(most, each), number + 1
    return found


def _missing(scene: Scene, jobs: Iterable[Flexible]) -> dict[str, int]:
    """Devices of each chip that waiting jobs could use and that are not free; 0 = just enough.

    Those that have not waited through a whole pass are about to be placed: nothing is missing yet.
    Who waits for more tasks than its least is counted with its least.
    """
    least = {x.job: x.tasks_min for x in jobs}
    wants: dict[str, int] = {}
    for task in scene.waiting:
        need = task.needs.accelerator
        if need is None:
            continue
        since_ms = max(task.submitted_ms, task.queued_ms)
        waited = since_ms <= scene.patience.passed_ms
        count = least.get(task.job, task.tasks) * need.count if waited else 0
        for chip in set(scene.chips(task)):
            wants[chip] = wants.get(chip, 0) + count
    free: dict[str, int] = {}
    for node in scene.nodes:
        if node.connected and not node.cordoned:
            for chip in {x.chip for x in node.devices} & wants.keys():
                free[chip] = free.get(chip, 0) + len(node.free_devices(chip))
    return {chip: max(0, n - free.get(chip, 0)) for chip, n in wants.items()}


def _hosts(scene: Scene, known: set[str], missing: Mapping[str, int]) -> tuple[Host, ...]:
    """What the known jobs hold, and what is free and nobody waits for; less what is missing."""
    room: dict[tuple[str, str], int] = {}
    for lease in scene.running:
        held = lease.allocation
        if lease.job in known and held.device_ids:
            key = lease.node_id, held.chip
            room[key] = room.get(key, 0) + len(held.device_ids)
    for node in scene.nodes:
        if node.connected and not node.cordoned:
            for chip in {x.chip for x in node.devices} - missing.keys():
                free = len(node.free_devices(chip))
                room[node.node_id, chip] = room.get((node.node_id, chip), 0) + free
    left = dict(missing)
    for key in sorted(room):
        taken = min(room[key], left.get(key[1], 0))
        room[key] -= taken
        if taken:
            left[key[1]] -= taken
    return tuple(Host(_key(*key), key[1], n) for key, n in sorted(room.items()) if n)


def _applied(
    wanted: Sequence[tuple[Flexible, Held, int]], scene: Scene, rules: TrainingRules
) -> list[Resize]:
    """Fewer first; more only as far as there is room now, and not what was tried in vain."""
    found: list[Resize] = []
    settled = [
        (job, held, max(job.tasks_min, min(job.tasks_max, tasks)))
        for job, held, tasks in wanted
        if job.ran_ms >= max(rules.settle_ms, job.min_runtime_ms)
    ]
    for job, held, wish in sorted(settled, key=lambda x: (x[2] - x[0].tasks, x[0].job)):
        if len(found) >= _MOST_AT_ONCE:
            break
        tasks = wish
        if wish > job.tasks:
            most = scene.patience.most(job, wish, scene.now_ms)
            tasks = job.tasks + scene.spare.more(job, most - job.tasks, held.chip)
        if tasks != job.tasks:
            why = _why(job, tasks)
            found.append(Resize(job.job, job.attempt, tasks, running=True, reason=why))
    return found


def _why(job: Flexible, tasks: int) -> Reason:
    evidence = {"from": str(job.tasks), "to": str(tasks)}
    if tasks > job.tasks:
        message = f"Devices are free on which it gains more than the restart costs: {tasks} tasks."
    else:
        message = f"Its last tasks gain it less than others would gain: {tasks} tasks."
    return Reason("RESIZED", message, "It goes on from its newest checkpoint.", evidence)
