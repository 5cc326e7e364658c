"""What others decide in the same rounds: first come first served, and Gavel's max-min fairness."""

import numpy as np
from scipy.optimize import linprog

from .round_replay import ROUND_S


class Fifo:
    """In the order of arrival, each on the fastest kind where it fits, never stopped nor moved.

    The first that fits nowhere holds up those behind it. (Kinds drawn by chance do far worse here:
    a long job may draw one on which it takes weeks.)
    """

    def __init__(self):
        self._running = {}

    def __call__(self, round_):
        jobs = {job["id"]: job for job in round_["jobs"]}
        self._running = {name: kind for name, kind in self._running.items() if name in jobs}
        left = dict(round_["free"])
        for name, kind in self._running.items():
            left[kind] -= jobs[name]["scale"]
        for name, job in jobs.items():
            if name in self._running:
                continue
            speeds = job["thr"]
            kinds = [kind for kind in left if speeds[kind] > 0 and left[kind] >= job["scale"]]
            if not kinds:
                break
            kind = self._running[name] = max(kinds, key=speeds.get)
            left[kind] -= job["scale"]
        return dict(self._running)


class MaxMin:
    """Heterogeneity-aware max-min: shares of time by a linear programme, then rounds by priority.

    The programme gives job j the share x[j, k] of its time on kind k so that the smallest
    normalised throughput times scale is largest. Each round goes to the pairs with the highest
    share per share received since the job came.

    Source: Gavel, sections 4.1 (the programme) and 5 (the rounds).
    """

    def __init__(self):
        self._jobs = None
        self._share = {}
        self._time = {}

    def __call__(self, round_):
        jobs = {job["id"]: job for job in round_["jobs"]}
        kinds = list(round_["free"])
        if self._jobs != set(jobs):
            self._jobs = set(jobs)
            self._share = shares(list(jobs.values()), round_["free"])
            self._time = {name: dict.fromkeys(kinds, 0.0) for name in jobs}
        order = sorted(
            ((self._priority(name, kind), -at, name, kind)
             for at, name in enumerate(jobs) for kind in kinds),
            reverse=True,
        )  # fmt: skip
        left, answer = dict(round_["free"]), {}
        for _, _, name, kind in order:
            job = jobs[name]
            if name in answer or not job["thr"][kind] or left[kind] < job["scale"]:
                continue
            answer[name] = kind
            left[kind] -= job["scale"]
        for name, kind in answer.items():
            self._time[name][kind] += ROUND_S
        return answer

    def _priority(self, name, kind):
        share = self._share[name, kind]
        total = sum(sum(each.values()) for each in self._time.values())
        received = self._time[name][kind]
        if received == 0:
            return share * 1e9
        return share / (received / total)


def shares(jobs, free):
    """The programme of max-min fairness: (job, kind) → share of its time."""
    kinds, n = list(free), len(jobs)
    devices = sum(free.values())
    width = n * len(kinds) + 1  # the last variable is the smallest normalised throughput
    above, at_most = [], []
    for j, job in enumerate(jobs):
        mean = sum(job["thr"][kind] * free[kind] for kind in kinds) / devices
        row = np.zeros(width)
        for k, kind in enumerate(kinds):
            row[j * len(kinds) + k] = -job["thr"][kind] * job["scale"] / mean
        row[-1] = 1.0
        above.append(row)
        at_most.append(0.0)
        row = np.zeros(width)
        row[j * len(kinds) : (j + 1) * len(kinds)] = 1.0
        above.append(row)
        at_most.append(1.0)
    for k, kind in enumerate(kinds):
        row = np.zeros(width)
        for j, job in enumerate(jobs):
            row[j * len(kinds) + k] = job["scale"]
        above.append(row)
        at_most.append(free[kind])
    goal = np.zeros(width)
    goal[-1] = -1.0
    floor = linprog(goal, A_ub=np.array(above), b_ub=np.array(at_most), bounds=(0, None)).x[-1]
    # What is left over goes where it adds most: the smallest must not become smaller.
    goal = np.concatenate([sum(-row[:-1] for row in above[: 2 * n : 2]), [0.0]]) * -1.0
    bounds = [(0, None)] * (width - 1) + [(floor * (1 - 1e-6), None)]
    found = linprog(goal, A_ub=np.array(above), b_ub=np.array(at_most), bounds=bounds).x
    return {
        (job["id"], kind): max(0.0, found[j * len(kinds) + k])
        for j, job in enumerate(jobs)
        for k, kind in enumerate(kinds)
    }
