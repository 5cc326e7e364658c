"""A victim beside an attacker, each with a lease of one CPU; and tasks that take all they can."""

import contextlib
import errno
import tempfile
import time
from pathlib import Path

from gridlease_agent.domain.task import Egress, NetworkGrant
from gridlease_agent.isolate import cgroups
from gridlease_agent.isolate.cores import CoreTable, layout
from gridlease_agent.isolate.ground import Ground
from gridlease_agent.network.tasks import TaskNetworks
from gridlease_agent.runtimes.choose import choose_runtime
from gridlease_agent.runtimes.spec import Network, SandboxSpec, uid_base
from gridlease_agent.sandbox import Deadline, Exited, Sandboxes
from gridlease_testkit.waiting import elapsed_sync, eventually_sync

PYTHON = "/usr/bin/python3"
MIB = 1 << 20
_PERIOD_S = 0.1  # of the quota: a window is a whole number of them
_VICTIM = """
import hashlib, time
data, count, due = bytes(4096), 0, time.monotonic() + 0.25
while True:
    for _ in range(50):
        hashlib.sha256(data).digest()
        sum(range(200))
    count += 1
    if time.monotonic() >= due:
        due += 0.25
        print(time.monotonic_ns(), time.process_time_ns(), count, flush=True)
"""
_ATTACK = """
import mmap, os, socket, threading, time
def spin():
    while True: pass
def copy():
    source, target = bytearray(64 << 20), bytearray(64 << 20)
    while True: target[:] = source
def fork():
    while True:
        pid = os.fork()
        if pid == 0: os._exit(0)
        os.waitpid(pid, 0)
def write():
    while True:
        with open("junk", "wb") as file:
            for _ in range(16):
                file.write(bytes(1 << 20))
            os.fsync(file.fileno())
def fault():
    while True:
        with mmap.mmap(-1, 32 << 20) as area:
            for at in range(0, len(area), 4096): area[at] = 1
def call():
    while True: os.getppid(); os.stat("/")
def talk():
    a, b = socket.socketpair()
    while True: a.send(b"x" * 4096); b.recv(4096)
def switch():
    for _ in range(16):
        threading.Thread(target=lambda: [time.sleep(0) for _ in iter(int, 1)]).start()
for one in (spin, copy, fork, write, fault, call, talk, switch):
    if os.fork() == 0: one()
print("up", flush=True)
os.wait()
"""
_BURN = "while True: pass"
_BOMBS = {
    "memory": "kept = []\nwhile True: kept.append(bytearray(8 << 20))",
    "memory_of_a_child": (
        "import os\nkept = []\n"
        "if os.fork() == 0:\n    while True: kept.append(bytearray(8 << 20))\n"
        "os.wait()"
    ),
    "disk": (
        "import itertools\nfor at in itertools.count():\n"
        "    open(str(at), 'wb').write(bytes(1 << 20))"
    ),
    "pids": (
        "import os, signal\nmade = 0\ntry:\n    while True:\n"
        "        if os.fork() == 0: signal.pause()\n        made += 1\n"
        "except OSError as trouble: print('refused', made, trouble.errno, flush=True)\n"
        "signal.pause()"
    ),
    "bandwidth": (
        "import contextlib, socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "while True:\n    with contextlib.suppress(OSError): s.sendto(bytes(1400), ('PEER', 9))"
    ),
}


class Node:
    """A node of its own in a folder of its own."""

    def __init__(self, folder):
        state = Path(folder)
        runtime = choose_runtime()
        self.networks = TaskNetworks(state)
        self.ground = Ground(state / "leases", CoreTable(layout(), state / "leases"), self.networks)
        self.ground.adopt()
        self.sandboxes = Sandboxes(state, runtime, ground=self.ground)
        self._count = 0

    def start(self, source, *, network=None, **parts):
        """A lease whose task is a Python script; on whole cores of its own."""
        self._count += 1
        lease_id = f"bench-{time.monotonic_ns()}-{self._count}"
        (self.sandboxes.prepare(lease_id) / "main.py").write_text(source)
        spec = SandboxSpec(
            lease_id,
            (PYTHON, "-I", "-S", "main.py"),
            uid_base=uid_base(33_000 + self._count),
            network=network,
            **{"core_tag": True} | parts,
        )
        self.sandboxes.start(lease_id, spec, Deadline.after(600_000, 0))
        return lease_id

    def counted(self, lease_id):
        return cgroups.counters(cgroups.recorded(self.sandboxes.folder(lease_id)))

    def log(self, lease_id):
        path = self.sandboxes.folder(lease_id) / "log"
        return path.read_text("utf-8", "replace") if path.exists() else ""

    def says(self, lease_id, text):
        eventually_sync(lambda: text in self.log(lease_id), 60)

    def ended(self, lease_id, seconds=90):
        """Its exit record; the lease is removed."""
        state = eventually_sync(
            lambda: isinstance(found := self.sandboxes.inspect(lease_id), Exited) and found, seconds
        )
        self.sandboxes.remove(lease_id)
        return state.record

    def end(self, lease_id):
        self.sandboxes.kill(lease_id)
        return self.ended(lease_id)


@contextlib.contextmanager
def node():
    """Gone at the end."""
    with tempfile.TemporaryDirectory(prefix="gridlease-bench-") as folder:
        made = Node(folder)
        try:
            yield made
        finally:
            for lease_id in made.sandboxes.list():
                with contextlib.suppress(Exception):
                    made.end(lease_id)
            made.networks.close()


def quota_error(place, seconds):
    """How far CPU time used is from CPU time promised, in percent; of 25 and of 50 %."""
    errors = {}
    for milli in (250, 500):
        lease_id = place.start(_BURN, cpu_milli=milli)
        eventually_sync(lambda one=lease_id: _cpu(place, one) > 200_000_000, 30)
        begun, before = time.monotonic(), _cpu(place, lease_id)
        elapsed_sync(round(seconds / 2 / _PERIOD_S) * _PERIOD_S)
        used, wall = _cpu(place, lease_id) - before, time.monotonic() - begun
        errors[milli] = abs(used / 1e9 / (wall * milli / 1_000) - 1) * 100
        place.end(lease_id)
    return errors


def _cpu(place, lease_id):
    found = place.counted(lease_id)
    return found.cpu_ns if found else 0


def victim_ratio(place, seconds, rounds=4):
    """The victim's throughput under an 8-way attack, over that alone, in turns."""
    victim = place.start(_VICTIM, cpu_milli=1_000)
    place.says(victim, "\n")
    windows = {"alone": [], "attacked": []}
    each_s = seconds / rounds / 2
    for _ in range(rounds):
        windows["alone"].append(_window(each_s))
        attacker = place.start(
            _ATTACK, cpu_milli=1_000, memory_bytes=512 * MIB, log_limit_bytes=1 << 16
        )
        place.says(attacker, "up")
        windows["attacked"].append(_window(each_s))
        place.end(attacker)
        elapsed_sync(0.5)  # its pages are written back, its memory is freed
    log = place.log(victim)
    place.end(victim)
    points = [tuple(map(int, line.split())) for line in log.splitlines() if line.count(" ") == 2]
    return {name: _rate(points, spans) for name, spans in windows.items()}


def _window(seconds):
    begun = time.monotonic_ns()
    elapsed_sync(seconds)
    return begun, time.monotonic_ns()


def _rate(points, spans):
    """Loops a second, and loops a second of its own CPU time, over these spans."""
    loops = wall = cpu = 0
    for begun, ended in spans:
        inside = [point for point in points if begun <= point[0] <= ended]
        if len(inside) < 2:
            continue  # a short window on a busy machine
        first, last = inside[0], inside[-1]
        wall, cpu = wall + last[0] - first[0], cpu + last[1] - first[1]
        loops += last[2] - first[2]
    assert wall, "the victim was never heard: give it more --seconds"
    return {"per_s": loops / wall * 1e9, "per_cpu_s": loops / cpu * 1e9}


def bombs(place):
    """What became of each task that takes all it can: name -> contained, and to whom it is told."""
    found = {}
    for name, limit in (("memory", "OOM_KILLED"), ("memory_of_a_child", "OOM_KILLED"),
                        ("disk", "DISK_QUOTA")):  # fmt: skip
        parts = {"memory_bytes": 64 * MIB, "disk_bytes": 64 * MIB}
        record = place.ended(place.start(_BOMBS[name], **parts))
        found[name] = {
            "reason": record.reason,
            "message": record.message,
            "contained": record.reason == limit and record.clean,
        }
    found["pids"] = _pids(place)
    found["bandwidth"] = _bandwidth(place)
    return found


def _pids(place):
    lease_id = place.start(_BOMBS["pids"], pids=64)
    place.says(lease_id, "refused")
    most = place.counted(lease_id).pids
    refused = f" {errno.EAGAIN}" in place.log(lease_id)
    record = place.end(lease_id)
    return {
        "most": most,
        "refused": refused,
        "reason": record.reason,
        "contained": most <= 64 and refused and record.clean,
    }


def _bandwidth(place):
    """A flood: all of it is its lease's own by the meter, and none reaches whom it may not call."""
    grant = NetworkGrant(egress=Egress.PEERS)
    quiet = place.start("import signal; signal.pause()", network=Network(0, "a", grant, "one"))
    source = _BOMBS["bandwidth"].replace("PEER", "100.64.0.1")
    flood = place.start(source, network=Network(1, "b", grant, "two", 1))
    eventually_sync(lambda: place.sandboxes.egress_bytes().get(flood, 0) > 10 * MIB, 60)
    sent = place.sandboxes.egress_bytes()
    place.end(flood)
    place.end(quiet)
    return {"sent_bytes": sent[flood], "neighbour_sent_bytes": sent[quiet],
            "contained": sent[quiet] == 0}  # fmt: skip
