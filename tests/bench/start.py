"""``./dev bench start``: from the order to the first byte, cold and warm; from a pull to a start.

A task says its first byte into a FIFO of its working folder, on whose other end the bench waits.
Figures are wall times of a machine that may do other things as well: the least and the median are
beside the 99th percentile, and the CPU time of all children and of this process.
"""

import argparse
import contextlib
import hashlib
import io
import json
import os
import resource
import select
import subprocess
import tarfile
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from gridlease_agent import environments
from gridlease_agent.adapters.spool_file import SpoolFile
from gridlease_agent.domain.spool import Phase, Row, Spool
from gridlease_agent.images.fetch import Fetcher
from gridlease_agent.images.roots import ImageRoots
from gridlease_agent.runtimes.choose import crun_candidate
from gridlease_agent.runtimes.held import HeldSandboxes
from gridlease_agent.runtimes.spec import Mount, SandboxSpec, shell_argv
from gridlease_agent.sandbox import Deadline, Exited, Sandboxes
from gridlease_testkit.registry import loopback_registry
from gridlease_testkit.waiting import elapsed_sync, eventually_sync

from .figures import last_line, machine, note, percentile, rounded, table

_MIB = 1 << 20
_SAY = "/run/bench"
_LOCK = Path(__file__).parents[2] / "runtimes" / "numpy.txt"
_KEPT = Path(__file__).parents[2] / ".state" / "main"
_TARGETS = {
    "cold_p99_ms": 60, "created_ahead_p99_ms": 6, "frozen_p99_ms": 1, "dispatch_p99_ms": 5,
    "pull_to_runnable_s": 4,
}  # fmt: skip


class Rig:
    """One node's sandboxes, with an image in place."""

    def __init__(self, state):
        runtime = crun_candidate()
        assert runtime is not None, "this bench needs root and crun"
        self.state = state
        self.roots = ImageRoots(state / "images", state / "leases", state / "blobs", 8 << 30)
        self.fetcher = Fetcher(state / "blobs", self.roots)
        self.sandboxes = Sandboxes(state, runtime, roots=self.roots)
        self.held = HeldSandboxes(self.sandboxes)
        self.spool = SpoolFile(state / "spool.sqlite")
        self.book = Spool("bench")
        self.spool.write(None, self.book, {}, {})
        self._count = 0

    def name(self, prefix="ls-"):
        self._count += 1
        return f"{prefix}b{os.getpid()}-{self._count}"

    def place(self, lease):
        """The FIFO that a lease's task speaks into: who listens there, and how it is shown."""
        here = self.state / "fifo" / lease
        here.mkdir(parents=True)
        os.mkfifo(here / "out")
        (here / "out").chmod(0o666)
        return os.open(here / "out", os.O_RDONLY | os.O_NONBLOCK), (Mount(str(here), _SAY),)

    def starting(self, lease):
        """The STARTING row, durable."""
        row = Row(lease, (), "boot", 0, 600_000, phase=Phase.STARTING)
        after = self.book.with_rows(row)
        self.spool.write(self.book, after, {}, {})
        self.book = after

    def over(self, lease):
        self.over_but_kept(lease)
        self.remove(lease)

    def over_but_kept(self, lease):
        eventually_sync(lambda: isinstance(self.sandboxes.inspect(lease), Exited), 20, lease)
        record = self.sandboxes.inspect(lease).record
        assert record.exit_code == 0, (record, (self.sandboxes.folder(lease) / "log").read_text())

    def remove(self, lease):
        self.sandboxes.remove(lease)
        subprocess.run(["rm", "-rf", str(self.sandboxes.folder(lease))], check=True)


@contextlib.contextmanager
def _rig(folder):
    rig = Rig(Path(folder))
    try:
        yield rig
    finally:
        rig.spool.close()
        rig.roots.close()


def _first_byte(fd):
    os.set_blocking(fd, True)
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    assert poll.poll(20_000), "no byte came"
    done = time.monotonic_ns()
    assert os.read(fd, 1)
    os.close(fd)
    return done


def _ms(ns):
    return ns / 1e6


def cold(rig, count, digest=""):
    """Create → first byte, with the image cached; and until the keeper was let loose."""
    spans, own = [], []
    for _ in range(count):
        lease = rig.name()
        fd, mounts = rig.place(lease)
        argv = shell_argv([f"echo x >{_SAY}/out"], "/bin/sh")
        spec = SandboxSpec(lease, argv, root=digest, mounts=mounts)
        began = time.monotonic_ns()
        rig.starting(lease)
        rig.sandboxes.start(lease, spec, Deadline.after(60_000, 0))
        own.append(_ms(time.monotonic_ns() - began))
        spans.append(_ms(_first_byte(fd) - began))
        rig.over(lease)
    return spans, own


def _warmed(rig, modules, **parts):
    warm = rig.name("warm-")
    fd, mounts = rig.place(warm)
    spec = SandboxSpec(warm, ("true",), mounts=mounts, **parts)
    rig.held.make(warm, spec, Deadline.after(60_000, 0), modules)
    eventually_sync(lambda: rig.held.warm(warm), 30, warm)
    elapsed_sync(0.02)  # what made it has come to rest
    return warm, fd


def ahead(rig, count, digest=""):
    """Release → first byte of a sandbox made ahead; and from the STARTING write to it."""
    spans, whole, command = [], [], f"echo x >{_SAY}/out"
    for _ in range(count):
        warm, fd = _warmed(rig, (), root=digest)
        lease = warm.replace("warm-", "ls-")
        spec = SandboxSpec(lease, shell_argv([command], "/bin/sh"), root=digest)
        began = time.monotonic_ns()
        rig.starting(lease)
        middle = time.monotonic_ns()
        rig.held.release(warm, spec, (command,), Deadline.after(60_000, 0))
        done = _first_byte(fd)
        spans.append(_ms(done - middle))
        whole.append(_ms(done - began))
        rig.over(lease)
    return spans, whole


def thawed(rig, count):
    """The keeper's thaw → the reply of numpy in memory; and from the release to it.

    The release also writes the launch, and the keeper makes the start durable before it thaws.
    """
    spans, whole = [], []
    found = environments.prepare(_LOCK, _KEPT, progress=note)
    parts = {"environment": str(found.folder), "environment_env": found.env}
    command = (
        'python3 -c "import numpy; a = numpy.ones(4).sum();'
        " open('/run/bench/out', 'wb', 0).write(b'x' if a == 4 else b'')\""
    )
    for _ in range(count):
        warm, fd = _warmed(rig, ("numpy",), **parts)
        lease = warm.replace("warm-", "ls-")
        spec = SandboxSpec(lease, shell_argv([command], "/bin/sh"), **parts)
        rig.starting(lease)
        began = time.monotonic_ns()
        rig.held.release(warm, spec, (command,), Deadline.after(60_000, 0))
        done = _first_byte(fd)
        whole.append(_ms(done - began))
        offset = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.monotonic_ns()
        rig.over_but_kept(lease)
        thawed = json.loads((rig.sandboxes.folder(lease) / "thawed.json").read_text())
        spans.append(_ms(done + offset - thawed["boottime_ns"]))
        rig.remove(lease)
    return spans, whole


# -- an image ---------------------------------------------------------------------------------


def _add(tar, name, content, mode=0o644):
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(content), mode
    tar.addfile(info, io.BytesIO(content))


def _programs():
    """A shell and what it needs, of this host."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for path in ("/bin/sh", "/bin/cat"):
            told = subprocess.run(["ldd", path], capture_output=True, text=True, check=True).stdout
            libraries = [word for word in told.split() if word.startswith("/")]
            for each in (path, *libraries):
                _add(tar, each.lstrip("/"), Path(os.path.realpath(each)).read_bytes(), 0o755)
    return out.getvalue()


def _tree(number, files, size):
    """A layer as a Python library is: many sources, some large objects; compresses about by 3."""
    seed = hashlib.sha256(bytes([number])).digest()
    text = b"def value(x):\n    return x * 2 + 1  # of a module\n" * 40
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:
        left = size
        for each in range(files):
            seed = hashlib.sha256(seed).digest()
            length = 8_000_000 if each % 120 == 7 else 4_000 + seed[0] * 150
            length = max(500, min(length, left - 500 * (files - each)))
            noise = hashlib.shake_256(seed).digest(length // 3)
            body = (noise + text * (length // len(text) + 1))[:length]
            left -= length
            _add(tar, f"usr/lib/python/l{number}/p{each % 60}/m{each}.py", body)
    return out.getvalue()


def pull(rig, rounds):
    """A pull → a mounted root; seconds, by compression."""
    with ThreadPoolExecutor(2) as pool:
        layers = list(pool.map(lambda n: _tree(n, 850, 40 * _MIB), range(4)))
    layers.insert(0, _programs())
    note(f"image: {sum(map(len, layers)) / 1e6:.0f} MB unpacked, {4 * 850 + 8} files")
    found = {"gzip": [], "zstd": []}
    for kind, spans in found.items():
        for each in range(rounds):
            with loopback_registry() as registry:
                registry.add_image(*layers, compression=kind)
                with tempfile.TemporaryDirectory(prefix="gridlease-pull-", dir=rig.state) as folder:
                    here = Path(folder)
                    roots = ImageRoots(here / "i", here / "l", here / "b", 8 << 30)
                    (here / "l" / "x").mkdir(parents=True)
                    began = time.monotonic()
                    digest = Fetcher(here / "b", roots).pull(f"{registry.address}/a/b:v1")
                    roots.ready(digest, "x")
                    spans.append(time.monotonic() - began)
                    roots.close()
            note(f"pull {kind} {each + 1}/{rounds}: {spans[-1]:.2f} s")
    return found


def _seconds():
    mine, theirs = (resource.getrusage(x) for x in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(x.ru_utime + x.ru_stime for x in (mine, theirs))


def main(words):
    """Print the table and the outcome."""
    parser = argparse.ArgumentParser(prog="./dev bench start", description=__doc__)
    parser.add_argument("--starts", type=int, default=200)
    parser.add_argument("--warm", type=int, default=100)
    parser.add_argument("--pulls", type=int, default=3)
    given = parser.parse_args(words)
    where, rows, results = machine(), [], {}
    if threading.active_count() > 1:
        note("other threads of this process run")

    def row(name, spans, target, key, cpu=0.0):
        spans = sorted(spans)
        results[key] = percentile(spans, 0.99)
        cells = [spans[0], percentile(spans, 0.5), results[key]]
        each = f"{cpu * 1000 / len(spans):.1f}" if cpu else "-"
        rows.append([name, len(spans), *(f"{x:.2f}" for x in cells), each, target])

    with tempfile.TemporaryDirectory(prefix="gridlease-start-") as folder, _rig(folder) as rig:
        with loopback_registry() as registry:
            registry.add_image(_programs())
            digest = rig.fetcher.pull(f"{registry.address}/small/shell:v1")
        cold(rig, 3, digest)
        note(f"cold: {given.starts} starts")
        before = _seconds()
        spans, own = cold(rig, given.starts, digest)
        row("cold, image cached", spans, "<= 60", "cold_p99_ms", _seconds() - before)
        row("order -> keeper runs", own, "<= 5", "dispatch_p99_ms")
        if rig.sandboxes.keeper.holds:
            note(f"created ahead: {given.warm} starts")
            spans, whole = ahead(rig, given.warm, digest)
            row("created ahead: release -> byte", spans, "<= 6", "created_ahead_p99_ms")
            row("created ahead: order -> byte", whole, "-", "created_ahead_order_p99_ms")
            note(f"frozen: {given.warm} starts")
            spans, whole = thawed(rig, given.warm)
            row("frozen, numpy: thaw -> reply", spans, "<= 1", "frozen_p99_ms")
            row("frozen, numpy: release -> reply", whole, "-", "frozen_release_p99_ms")
        note("pull")
        pulls = pull(rig, given.pulls)
        for kind, each in pulls.items():
            row(f"pull, {kind} (s)", each, "<= 4", f"pull_{kind}_s")
        results["pull_to_runnable_s"] = max(sorted(x)[len(x) // 2] for x in pulls.values())
    head = ["start", "runs", "min", "p50", "p99", "CPU ms each", "target"]
    table(f"Starts in ms ({where})", head, rows)
    ratio = {key: results[key] / most for key, most in _TARGETS.items() if key in results}
    last_line(bench="start", results=rounded(results), baseline=_TARGETS, ratio=rounded(ratio))
    return 0
