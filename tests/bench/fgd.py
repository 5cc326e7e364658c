"""FGD as published: the baseline of the packing bench. It knows the whole mix beforehand.

Scores are whole numbers from 0 to 100 and ties go to the fixed node order, as in the project that
the paper describes; both are needed to reproduce its 95.2 %. Scores are kept by request and node
and renewed where a node changed.

Source: Q. Weng et al., "Beware of Fragmentation", USENIX ATC 2023. All requests for devices
count as typical, which on these traces does better than the commonest 95 %.
"""

import math
from bisect import bisect_right
from itertools import accumulate

from gridlease_scheduler.domain.placing.fragmentation import after, choices, given_back
from gridlease_scheduler.domain.placing.packing import Spot


class Fgd:
    """The same face as the product's ``Fleet``."""

    def __init__(self, rooms, mix):
        self.rooms = list(rooms)
        self.residents = [{} for _ in self.rooms]
        self.changed = []
        self.scores = {}
        self.known = {}
        self.idle = {}
        self.tables(mix)

    def tables(self, mix):
        """For each chip and count of free CPUs, the part of the mix that could use a device."""
        typical = {request: count for request, count in mix.items() if request.devices}
        kept = sum(typical.values())
        self.cpus = sorted({request.cpu_milli for request in typical})
        self.rows = {}
        for chip in {room.chip for room in self.rooms}:
            for level in range(len(self.cpus) + 1):
                cpu = self.cpus[level - 1] if level else -1
                share, whole = [0.0] * 1001, [0.0] * 17
                for request, count in typical.items():
                    if request.cpu_milli > cpu or (request.chips and chip not in request.chips):
                        continue
                    if request.device_milli < 1000:
                        share[request.device_milli] += count / kept
                    else:
                        whole[request.devices] += count / kept
                self.rows[chip, level] = (list(accumulate(share)), list(accumulate(whole)))

    def unusable(self, room):
        """The fragmentation of a node, in thousandths of devices."""
        answer = self.idle.get(room)
        if answer is None:
            share, whole = self.rows[room.chip, bisect_right(self.cpus, room.cpu_milli)]
            full = room.free.count(1000)
            answer = sum(milli * (1 - share[milli]) for milli in room.free)
            answer -= full * 1000 * whole[full]
            self.idle[room] = answer
        return answer

    def quote(self, request, room):
        """The score (-1 = no room) and the devices taken; higher is better."""
        before, best = self.unusable(room), (-1, ())
        for taken in choices(request, room):
            gain = (before - self.unusable(after(request, room, taken))) / 1000
            score = int(100 / (1 + math.exp(-gain)))
            if score > best[0]:
                best = (score, taken)
        return best

    def arrive(self, request):
        """Nothing is learned: the mix is known."""

    def best(self, request):
        """The place with the highest score, or None."""
        known = self.known.setdefault(request, {})

        def score(node):
            room = self.rooms[node]
            if room not in known:
                known[room] = self.quote(request, room)
            return known[room][0]

        if request not in self.scores:
            self.scores[request] = [[score(n) for n in range(len(self.rooms))], 0]
            self.scores[request][1] = len(self.changed)
        mine = self.scores[request]
        for node in self.changed[mine[1] :]:
            mine[0][node] = score(node)
        mine[1] = len(self.changed)
        most = max(mine[0])
        if most < 0:
            return None
        node = mine[0].index(most)
        return Spot(node, known[self.rooms[node]][1], -most)

    def put(self, name, request, node, taken):
        """Place it."""
        self.rooms[node] = after(request, self.rooms[node], taken)
        self.residents[node][name] = (request, taken)
        self.changed.append(node)

    def take(self, name, node):
        """Remove it."""
        request, taken = self.residents[node].pop(name)
        self.rooms[node] = given_back(request, self.rooms[node], taken)
        self.changed.append(node)
