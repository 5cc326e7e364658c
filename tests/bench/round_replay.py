"""A cluster in rounds: jobs arrive, a policy says who runs on what kind, and the clock goes on.

Gavel's experiment: jobs of a fixed number of devices and of steps, kinds of devices of different
speed, decisions at the start of every round. A job that starts, moves or comes back loses
``SWITCH_S`` of its first round. One that ends inside a round keeps its devices to the round's end.

Source: D. Narayanan et al., "Heterogeneity-Aware Cluster Scheduling Policies for Deep Learning
Workloads", OSDI 2020 (the setting and its measured throughputs).
"""

import csv
import gzip
import time
from dataclasses import dataclass, field
from math import ceil

import numpy as np

ROUND_S = 360
SWITCH_S = 30
FREE = {"v100": 12, "p100": 12, "k80": 12}
_ROUNDS_AT_MOST = 200_000


class OverCapacityError(Exception):
    """An answer that cannot be carried out: the run is worth nothing."""


@dataclass(slots=True)
class Job:
    """A job of the trace, and how far it has come."""

    name: str
    arrival_s: float
    steps: float
    scale: int
    thr: dict[str, float]
    done: float = 0.0
    got: float = 0.0
    kind: str | None = None
    switches: int = 0
    end_s: float | None = None


@dataclass(slots=True)
class Outcome:
    """What came of a run."""

    jobs: list[Job]
    free: dict[str, int]
    decide_ms: list[float] = field(default_factory=list)

    def figures(self):
        """The promised figures: hours, switches a job, and finish-time fairness."""
        jct = np.array([job.end_s - job.arrival_s for job in self.jobs])
        span = max(job.end_s for job in self.jobs) - min(job.arrival_s for job in self.jobs)
        present = float(jct.sum()) / span
        alone = np.array([self._fair_s(job, present) for job in self.jobs])
        return {
            "avg_jct_h": float(jct.mean()) / 3600,
            "p99_jct_h": float(np.percentile(jct, 99)) / 3600,
            "makespan_h": span / 3600,
            "switches_per_job": sum(job.switches for job in self.jobs) / len(self.jobs),
            "ftf_p99": float(np.percentile(jct / alone, 99)),
        }

    def _fair_s(self, job, present):
        """How long the job would take with its fair share of an average device."""
        devices = sum(self.free.values())
        mean = sum(job.thr.get(kind, 0.0) * n for kind, n in self.free.items()) / devices
        return job.steps / (mean * min(1.0, devices / (present * job.scale)))

    def decide(self):
        """How long the decisions took, in milliseconds of this process's CPU time."""
        found = sorted(self.decide_ms)
        return {
            "mean_ms": sum(found) / len(found),
            "p99_ms": found[int(len(found) * 0.99)],
            "max_ms": found[-1],
        }


def rows(path):
    with gzip.open(path, "rt", newline="") as source:
        yield from csv.DictReader(source)


def read(folder, gaps=1.0):
    """The jobs of the seed-0 file; ``gaps`` stretches or tightens the times between arrivals."""
    speeds = {}
    for row in rows(folder / "throughputs.csv.gz"):
        work = (row["model"], row["batch_size"], row["scale_factor"])
        if float(row["steps_per_s"]) > 0:
            speeds.setdefault(work, {})[row["worker_type"]] = float(row["steps_per_s"])
    jobs = []
    for number, row in enumerate(rows(folder / "jobs_generated_seed0.csv.gz")):
        speed = speeds[row["model"], row["batch_size"], row["scale_factor"]]
        thr = {kind: speed.get(kind, 0.0) for kind in FREE}
        arrival = float(row["arrival_s"]) * gaps
        scale = int(row["scale_factor"])
        jobs.append(Job(str(number), arrival, float(row["total_steps"]), scale, thr))
    return jobs


def replay(jobs, policy, free=None):
    """Play the jobs to their end; ``policy`` answers each snapshot with a kind by job id."""
    free = dict(free or FREE)
    outcome = Outcome(jobs, free)
    ahead = sorted(jobs, key=lambda job: job.arrival_s)
    present, now = [], 0
    for _ in range(_ROUNDS_AT_MOST):
        if not present:
            if not ahead:
                return outcome
            now = max(now, ceil(ahead[0].arrival_s / ROUND_S) * ROUND_S)
        while ahead and ahead[0].arrival_s <= now:
            present.append(ahead.pop(0))
        began = time.process_time()
        answer = policy(snapshot(now, free, present))
        outcome.decide_ms.append((time.process_time() - began) * 1e3)
        check(answer, present, free)
        for job in present:
            play(job, answer.get(job.name), now)
        present = [job for job in present if job.end_s is None]
        now += ROUND_S
    raise OverCapacityError("the jobs do not end")


def snapshot(now, free, present):
    """A round as the line of the pipe says it."""
    return {
        "t": now,
        "free": free,
        "jobs": [
            {
                "id": job.name,
                "scale": job.scale,
                "left": job.steps - job.done,
                "age": now - job.arrival_s,
                "got": job.got,
                "thr": job.thr,
            }
            for job in present
        ],
    }


def check(answer, present, free):
    """Raises OverCapacityError where the answer asks for what is not there."""
    jobs, left = {job.name: job for job in present}, dict(free)
    for name, kind in answer.items():
        if name not in jobs or not jobs[name].thr.get(kind):
            raise OverCapacityError(f"{name} cannot run on {kind}")
        left[kind] -= jobs[name].scale
    if min(left.values()) < 0:
        raise OverCapacityError(f"more devices given than there are: {left}")


def play(job, kind, now):
    """One round of one job."""
    if job.kind is not None and kind != job.kind:
        job.switches += 1
    lost = SWITCH_S if kind is not None and kind != job.kind else 0
    job.kind = kind
    if kind is None:
        return
    speed = job.thr[kind]
    if job.done + (ROUND_S - lost) * speed >= job.steps - 1e-6:
        spent = lost + (job.steps - job.done) / speed
        job.end_s = now + spent
        job.got += spent * job.scale
    else:
        job.done += (ROUND_S - lost) * speed
        job.got += ROUND_S * job.scale
