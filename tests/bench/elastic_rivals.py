"""What the policy is compared with: FIFO at the user's request, and Sia's objective.

Source: Sia (SOSP'23), section 3.4: at most one configuration a job, minimise the sum of normalised
goodputs to the power -0.5, and 1.1 for each job left waiting; solved by HiGHS.
"""

from collections import defaultdict

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

POWER = -0.5
WAITING = 1.1
LEAST_FACTOR = 0.01


def fifo(snapshot):
    """In order of arrival, the fixed count, on the first kind that has it free; none overtakes."""
    free = free_on(snapshot)
    for job in snapshot["jobs"]:
        if job["alloc"]:
            for index, gpus in job["alloc"]["nodes"].items():
                free[job["alloc"]["kind"]][int(index)] -= gpus
    answer = {job["id"]: job["alloc"] for job in snapshot["jobs"] if job["alloc"]}
    for job in sorted(snapshot["jobs"], key=lambda job: -job["age"]):
        if job["alloc"]:
            continue
        for kind in ("a100", "2080ti", "t4"):
            nodes = fit(free[kind], job["tuned_gpus"], whole=False)
            if nodes:
                take(free[kind], nodes)
                answer[job["id"]] = {"kind": kind, "nodes": nodes}
                break
        else:
            break
    return answer


def free_on(snapshot):
    """kind -> node -> GPUs."""
    found = defaultdict(dict)
    for node in snapshot["nodes"]:
        found[node["kind"]][node["i"]] = node["gpus"]
    return found


def fit(free, gpus, *, whole=True):
    """Nodes for a count: the tightest one that has it, else the emptiest ones; ``whole``: full."""
    one = [(room, i) for i, room in free.items() if room >= gpus]
    if one:
        return {str(min(one)[1]): gpus}
    size, nodes = gpus, {}
    for room, i in sorted(((room, i) for i, room in free.items()), key=lambda x: (-x[0], x[1])):
        part = min(room, gpus)
        if part:
            nodes[str(i)] = part
            gpus -= part
        if not gpus:
            break
    fewest = -(-size // max(free.values(), default=1)) if any(free.values()) else 0
    return nodes if not gpus and (not whole or len(nodes) <= fewest) else None


def take(free, nodes):
    for index, gpus in nodes.items():
        free[int(index)] -= gpus


class Sia:
    """Sia's round, as published, on perfect or given rows."""

    def __call__(self, snapshot):
        sizes, capacity = {}, defaultdict(int)
        for node in snapshot["nodes"]:
            sizes[node["kind"]] = node["gpus"]
            capacity[node["kind"]] += node["gpus"]
        pinned = [job for job in snapshot["jobs"] if job["alloc"] and job["restart_left"] > 0]
        for job in pinned:
            capacity[job["alloc"]["kind"]] -= sum(job["alloc"]["nodes"].values())
        free = [job for job in snapshot["jobs"] if job not in pinned]
        chosen = self.solve(free, sizes, capacity)
        for job in pinned:
            chosen[job["id"]] = job["alloc"]["kind"], sum(job["alloc"]["nodes"].values())
        return place(snapshot, chosen, {job["id"] for job in pinned})

    def solve(self, jobs, sizes, capacity):
        """{id: (kind, count)}."""
        columns = []
        for row, job in enumerate(jobs):
            columns += [(row, kind, n, cost) for kind, n, cost in costs(job, sizes, capacity)]
        if not columns:
            return {}
        kinds = sorted(sizes)
        rows = [c[0] for c in columns] + [len(jobs) + kinds.index(c[1]) for c in columns]
        data = [1.0] * len(columns) + [float(c[2]) for c in columns]
        at = list(range(len(columns))) * 2
        shape = (len(jobs) + len(kinds), len(columns))
        matrix = csr_array((data, (rows, at)), shape=shape)
        limit = np.array([1.0] * len(jobs) + [float(capacity[kind]) for kind in kinds])
        found = milp(
            np.array([c[3] - WAITING for c in columns]),
            constraints=LinearConstraint(matrix, -np.inf, limit),
            integrality=np.ones(len(columns)),
            bounds=Bounds(0, 1),
            options={"time_limit": 10.0, "mip_rel_gap": 1e-4},
        )
        assert found.x is not None, found.message
        return {
            jobs[c[0]]["id"]: (c[1], c[2]) for c, x in zip(columns, found.x, strict=True) if x > 0.5
        }


def costs(job, sizes, capacity):
    """(kind, count, cost) for each configuration that the job may take."""
    rates = {}
    for kind, rows in job["goodput"].items():
        for n, _, rate in rows:  # the fewest nodes come last of their count
            size = sizes[kind]
            if (n & (n - 1) == 0 and n <= size) or n % size == 0:
                rates[kind, n] = rate
    least = min(rates.values())
    held = job["alloc"] and (job["alloc"]["kind"], sum(job["alloc"]["nodes"].values()))
    span = job["restart_s"]
    factor = max(LEAST_FACTOR, (job["age"] - job["restarts"] * span) / (job["age"] + span))
    for (kind, n), rate in rates.items():
        if n <= capacity[kind]:
            worth = rate / least * (factor if held and (kind, n) != held else 1.0)
            yield kind, n, worth**POWER


def place(snapshot, chosen, pinned):
    """Unchanged jobs stay; the others go largest first; where they do not fit, a kind is redone."""
    jobs = {job["id"]: job for job in snapshot["jobs"]}
    answer = {}
    for kind, empty in free_on(snapshot).items():
        mine = {name: n for name, (where, n) in chosen.items() if where == kind}
        stay = {name for name, n in mine.items() if holds(jobs[name], kind, n)}
        for kept in (stay, stay & pinned, set()):
            free, found = dict(empty), {}
            for name in kept:
                found[name] = jobs[name]["alloc"]
                take(free, found[name]["nodes"])
            for name in sorted(set(mine) - kept, key=lambda name: (-mine[name], name)):
                nodes = fit(free, mine[name])
                if nodes:
                    take(free, nodes)
                    found[name] = {"kind": kind, "nodes": nodes}
            if len(found) == len(mine):
                break
        answer |= found
    return answer


def holds(job, kind, gpus):
    alloc = job["alloc"]
    return bool(alloc) and alloc["kind"] == kind and sum(alloc["nodes"].values()) == gpus
