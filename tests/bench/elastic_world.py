"""Elastic training jobs on a cluster of three kinds: measured profiles, and rounds of 60 s.

Source: Sia (SOSP'23) and Pollux (OSDI'21): goodput, profiles and workloads of their artifacts. The
definitions (gain, accumulation, restart, completion inside a round) are those of the papers; the
profiles are read from a folder outside the project, for they carry no licence.
"""

import csv
import functools
import gzip
import math
import random
from bisect import bisect_right
from collections import defaultdict
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np

from .children import ROOT

DATA = Path(ROOT).parent / "shared" / "data" / "sia"
NODES = tuple(
    {"i": i, "kind": kind, "gpus": gpus}
    for i, (kind, gpus) in enumerate([("t4", 4)] * 6 + [("a100", 8)] * 2 + [("2080ti", 8)] * 3)
)
PROFILE_NAMES = {"t4": "aws", "a100": "dgx-ext", "2080ti": "rtx"}
RESTART_S = {"cifar10": 50.0, "deepspeech2": 25.0, "bert": 120.0, "yolov3": 80.0, "imagenet": 250.0}
SLOWER_THAN_MEASURED = {"cifar10": 1.8}  # real machines against the profile; else 1.2
ROUND_S = 60.0
LIMIT_S = 400 * 3600.0


def read(path):
    with gzip.open(path, "rt") as source:
        return list(csv.DictReader(source))


class Profiles:
    """What each application does on each placement, and how it learns."""

    def __init__(self, folder):
        self._steps = defaultdict(lambda: defaultdict(list))
        self._placed = defaultdict(lambda: defaultdict(list))
        self._learning = defaultdict(lambda: defaultdict(list))
        names = {value: key for key, value in PROFILE_NAMES.items()}
        for row in read(folder / "profile_placements.csv.gz"):
            if row["gpu"] in names and row["app"] in RESTART_S:
                shape = tuple(int(each) for each in row["placement"])
                self._placed[row["app"], names[row["gpu"]]][shape].append(_step(row))
        for row in read(folder / "profile_scalability.csv.gz"):
            if row["gpu"] in names and row["app"] in RESTART_S:
                spot = int(row["nodes"]), int(row["replicas"])
                self._steps[row["app"], names[row["gpu"]]][spot].append(_step(row))
        for row in read(folder / "profile_statistics.csv.gz"):
            values = [float(row[key]) for key in ("progress", "grad_sqr", "grad_var")]
            self._learning[row["app"]][int(row["global_batch"])].append(values)
        for key, shapes in self._placed.items():
            measured = set(self._steps[key])
            for shape, points in shapes.items():
                spot = len(shape), sum(shape)
                if spot not in measured and spot not in self._steps[key]:
                    self._steps[key][spot] = points

    @functools.cached_property
    def boundaries(self):
        """Progress at the end of each epoch, by application: the least over batch sizes."""
        return {
            app: [min(row[0] for row in rows) for rows in zip(*batches.values(), strict=True)]
            for app, batches in self._learning.items()
        }

    @functools.cache  # noqa: B019 - one instance a process
    def rates(self, app, kind, shape, batch=None):
        """Initial-batch iterations a second in each epoch; ``batch`` None: the best one."""
        local, sizes = self._sizes(app, kind, sum(shape), batch)
        if not len(sizes):
            return np.zeros(len(self.boundaries[app]))
        first, largest = min(self._learning[app]), self._largest(app, kind)
        extra = np.ceil(local / largest - 1e-9) - 1
        if sum(shape) == 1:
            extra = np.where((local > first) & (extra < 1), 1, extra)
        each = np.ceil(local / (extra + 1) - 1e-9)
        step, sync = self._times(app, kind, shape, each)
        seconds = step + extra * (step - sync)
        gains = self._gains(app, tuple(sizes))
        return (gains / seconds / SLOWER_THAN_MEASURED.get(app, 1.2)).max(axis=1)

    def _largest(self, app, kind):
        return max(point[0] for points in self._placed[app, kind].values() for point in points)

    def _sizes(self, app, kind, gpus, batch):
        smallest = min(p[0] for points in self._placed[app, kind].values() for p in points)
        low, high = max(min(self._learning[app]), gpus * smallest), max(self._learning[app])
        if batch is not None:
            sizes = np.array([float(batch)])
        elif low > high:
            sizes = np.array([])
        else:
            sizes = np.geomspace(low, high, 50)
        return sizes / gpus, sizes

    @functools.cache  # noqa: B019
    def _gains(self, app, sizes):
        batches = sorted(self._learning[app])
        found = []
        for epoch in range(len(self.boundaries[app])):
            rows = [self._learning[app][batch][epoch] for batch in batches]
            squared = np.interp(sizes, batches, [row[1] for row in rows])
            variance = np.interp(sizes, batches, [row[2] for row in rows])
            scale = batches[0] / np.array(sizes)
            found.append((variance + squared) / (variance * scale + squared))
        return np.array(found)

    def _times(self, app, kind, shape, each):
        turns = [shape[i:] + shape[:i] for i in range(len(shape))]
        for turn in turns:
            if turn in self._placed[app, kind]:
                return _at(self._placed[app, kind][turn], each)
        table = defaultdict(dict)
        for (nodes, gpus), points in self._steps[app, kind].items():
            table[nodes][gpus] = points
        known = sorted(table)
        low, high, share = _between(known, len(shape))
        ends = []
        for nodes in (low, high):
            counts = sorted(table[nodes])
            a, b, part = _between(counts, sum(shape))
            pairs = [_at(table[nodes][count], each) for count in (a, b)]
            ends.append([x * (1 - part) + y * part for x, y in zip(*pairs, strict=True)])
        return [x * (1 - share) + y * share for x, y in zip(*ends, strict=True)]


def _step(row):
    return tuple(float(row[key]) for key in ("local_bsz", "step_s", "sync_s"))


def _at(points, each):
    local, step, sync = zip(*sorted(points), strict=True)
    return np.interp(each, local, step), np.interp(each, local, sync)


def _between(known, value):
    """The neighbours of a value among sorted ones, and its share of the way."""
    if value <= known[0]:
        return known[0], known[0], 0.0
    for low, high in pairwise(known):
        if value <= high:
            return low, high, (value - low) / (high - low)
    return known[-1], known[-1], 0.0


def shapes(gpus, per_node, nodes):
    """(node count, shape) by which ``gpus`` are profiled: one node more, then the fewest."""
    fewest = math.ceil(gpus / per_node)
    found = []
    if fewest + 1 <= min(nodes, gpus):
        parts = fewest + 1
        found.append(
            (parts, tuple(sorted(gpus // parts + (i < gpus % parts) for i in range(parts))))
        )
    rest = gpus - (fewest - 1) * per_node
    found.append((fewest, tuple(sorted((rest, *[per_node] * (fewest - 1))))))
    return found


@dataclass
class Job:
    """A job and its account."""

    id: str
    app: str
    submit_s: float
    tuned: int
    batch: int
    progress: float = 0.0
    epoch: int = 0
    alloc: dict | None = None
    restart_left: float = 0.0
    restarts: int = 0
    started: bool = False
    seen: int = 0
    gpu_s: float = 0.0
    end_s: float | None = None
    ran: set = field(default_factory=set)


class World:
    """Rounds of 60 s. ``policy(snapshot) -> {id: {"kind", "nodes"}}``."""

    def __init__(self, profiles, jobs, *, noise=0.0, seed=0, fixed=False):
        self.profiles, self.jobs, self.noise, self.seed = profiles, jobs, noise, seed
        self.fixed = fixed
        self.t = 0.0
        self.size = {node["i"]: node["gpus"] for node in NODES}
        self.kind = {node["i"]: node["kind"] for node in NODES}
        self.errors = {}

    def run(self, policy):
        """Until all jobs have ended; their account."""
        waiting = sorted(self.jobs, key=lambda job: job.submit_s)
        present = []
        while waiting or present:
            if self.t > LIMIT_S:
                raise RuntimeError("the jobs do not come to an end")
            while waiting and waiting[0].submit_s <= self.t:
                present.append(waiting.pop(0))
            if present:
                self.apply(policy(self.snapshot(present)), present)
                for job in present:
                    self.advance(job)
                present = [job for job in present if job.end_s is None]
            self.t += ROUND_S
        return self.figures()

    def figures(self):
        spans = [job.end_s - job.submit_s for job in self.jobs]
        return {
            "avg_s": float(np.mean(spans)),
            "p50_s": float(np.percentile(spans, 50)),
            "p99_s": float(np.percentile(spans, 99)),
            "makespan_s": max(j.end_s for j in self.jobs) - min(j.submit_s for j in self.jobs),
            "gpu_h": sum(job.gpu_s for job in self.jobs) / 3600 / len(self.jobs),
            "restarts": sum(job.restarts for job in self.jobs) / len(self.jobs),
        }

    def snapshot(self, present):
        return {
            "t": self.t,
            "round_s": ROUND_S,
            "nodes": list(NODES),
            "jobs": [self.view(job) for job in present],
        }

    def view(self, job):
        bounds = self.profiles.boundaries[job.app]
        return {
            "id": job.id,
            "app": job.app,
            "age": self.t - job.submit_s,
            "done": bounds[job.epoch - 1] / bounds[-1] if job.epoch else 0.0,
            "alloc": job.alloc,
            "restart_left": job.restart_left,
            "restart_s": RESTART_S[job.app],
            "restarts": job.restarts,
            "gpu_s": job.gpu_s,
            "tuned_gpus": job.tuned,
            "min_gpus": 1,
            "max_gpus": 24,
            "seen_gpus": job.seen,
            "goodput": self.rows(job),
        }

    def rows(self, job):
        exact = table(self.profiles, job.app, job.epoch, max(1, 2 * job.seen))
        if not self.noise:
            return exact
        return {
            kind: [[n, k, rate * self.error(job, kind, n, k)] for n, k, rate in rows]
            for kind, rows in exact.items()
        }

    def error(self, job, kind, gpus, nodes):
        """The factor by which a configuration that was not yet run is misjudged."""
        key = job.id, kind, gpus, nodes
        if key[1:] in job.ran:
            return 1.0
        if key not in self.errors:
            chance = random.Random(f"{self.seed}/{key}")
            self.errors[key] = math.exp(chance.gauss(0.0, self.noise))
        return self.errors[key]

    def apply(self, answer, present):
        self.check(answer, {job.id for job in present})
        for job in present:
            new = answer.get(job.id)
            if new == job.alloc:
                continue
            job.alloc = new
            if new is not None:
                job.restarts += job.started
                job.started = True
                job.restart_left = RESTART_S[job.app]

    def check(self, answer, known):
        free = dict(self.size)
        for name, alloc in answer.items():
            assert name in known, f"unknown job {name}"
            assert 1 <= sum(alloc["nodes"].values()) <= 24, (name, alloc)
            for index, gpus in alloc["nodes"].items():
                assert gpus > 0, (name, alloc)
                assert self.kind[int(index)] == alloc["kind"], (name, alloc)
                free[int(index)] -= gpus
        assert min(free.values()) >= 0, answer

    def advance(self, job):
        """One round's progress, epoch by epoch."""
        if job.alloc is None:
            return
        shape = tuple(
            gpus for _, gpus in sorted((int(i), n) for i, n in job.alloc["nodes"].items())
        )
        batch = max(job.batch, sum(shape)) if self.fixed else None
        rates = self.profiles.rates(job.app, job.alloc["kind"], shape, batch)
        bounds = self.profiles.boundaries[job.app]
        pause = min(job.restart_left, ROUND_S)
        job.restart_left -= pause
        left = ROUND_S - pause
        if left > 0:
            job.seen = max(job.seen, sum(shape))
            job.ran.add((job.alloc["kind"], sum(shape), len(shape)))
        while left > 0 and job.end_s is None:
            need = (bounds[job.epoch] - job.progress) / rates[job.epoch]
            if need > left:
                job.progress += left * rates[job.epoch]
                left = 0.0
            else:
                left -= need
                job.progress = bounds[job.epoch]
                job.epoch = bisect_right(bounds, job.progress)
                if job.epoch == len(bounds):
                    job.end_s = self.t + ROUND_S - left
        job.gpu_s += sum(shape) * (ROUND_S - left if job.end_s is not None else ROUND_S)


@functools.cache
def table(profiles, app, epoch, limit):
    """Exact goodput rows of an application in one epoch."""
    found = {}
    for kind in PROFILE_NAMES:
        sizes = [node["gpus"] for node in NODES if node["kind"] == kind]
        found[kind] = [
            [gpus, parts, float(profiles.rates(app, kind, shape)[epoch])]
            for gpus in range(1, min(limit, sum(sizes)) + 1)
            for parts, shape in shapes(gpus, sizes[0], len(sizes))
        ]
    return found


def workload(folder, name, number, limit=None):
    """The jobs of one workload."""
    rows = [
        row
        for row in read(folder / "workloads.csv.gz")
        if (row["set"], row["workload"]) == (name, str(number))
    ]
    return [
        Job(row["job"], row["app"], float(row["submit_s"]),
            int(row["tuned_replicas"]), int(row["tuned_batch"]))
        for row in rows[:limit]
    ]  # fmt: skip
