"""What one tenant leaves behind, the next one does not find, nor does the node keep it."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from gridlease_agent import shim
from gridlease_agent.adapters.lease_files import LeaseFiles
from gridlease_agent.adapters.mesh_calls import receipt
from gridlease_agent.adapters.spool_file import SpoolFile
from gridlease_agent.ailments import marked
from gridlease_agent.book import Book
from gridlease_agent.devices.discover import discover
from gridlease_agent.devices.family import load
from gridlease_agent.devices.keeper import DeviceKeeper
from gridlease_agent.domain import lease
from gridlease_agent.domain.spool import Clocks, Deadline, Phase, Row, Spool
from gridlease_agent.domain.task import SCRATCH, scratch
from gridlease_agent.inventory import Lending, inventory
from gridlease_agent.probes import emulated
from gridlease_agent.runtimes.choose import Runtime
from gridlease_agent.runtimes.devices import DeviceTable
from gridlease_agent.runtimes.spec import Mount, uid_base
from gridlease_agent.sandbox import Sandboxes
from gridlease_agent.scrub import Scrubber
from gridlease_kernel.clock import ManualClock, SystemClock
from gridlease_kernel.receipts import wipe_text
from gridlease_mesh.credentials import new_user_key
from gridlease_mesh.signatures import Signer, verified
from gridlease_scheduler.wire import nodes as scheduler_nodes

from tests.escape.world import SLOT, World

# Leaves the mark in every place that a task can write, then ends or waits for its keeper's death.
_LEAVES = """
import ctypes, mmap, os, signal, sys
mark = bytes.fromhex(%(mark)r)
os.makedirs("out/deep"); os.makedirs("scratch/.hidden")
places = ["out/kept", "out/deep/kept", "scratch/a", "scratch/.hidden/b", "/tmp/c", "/dev/shm/d",
          "name-" + mark.decode()]
for place in places:
    with open(place, "wb") as file:
        file.write(mark * 4096)
try:
    os.setxattr("scratch/a", "user.mark", mark)
except OSError:
    pass
os.chmod("scratch/.hidden", 0); os.chmod("scratch", 0o500)
libc = ctypes.CDLL(None); libc.shmat.restype = ctypes.c_void_p
ident = libc.shmget(0x6d61726b, 1 << 16, 0o1666)
at = libc.shmat(ident, None, 0)
ctypes.memmove(at, mark, len(mark))
open_still = open("/work/gone", "wb"); open_still.write(mark * 4096); os.unlink("/work/gone")
memory = mmap.mmap(-1, 32 << 20)
memory.write(mark * ((32 << 20) // len(mark)))
with open(os.memfd_create("mark"), "wb", closefd=False) as file: file.write(mark)
print("left", flush=True)
if %(waits)r: signal.pause()
"""
# Reads all it can: files outside the host's own by content, those by age; memory; fresh disk.
_SEARCHES = """
import json, mmap, os, stat
mark, since = bytes.fromhex(%(mark)r), %(since)d
found, read = [], 0
for parent, folders, files in os.walk("/"):
    folders[:] = [n for n in folders if os.path.join(parent, n) not in ("/proc", "/sys")]
    for name in [*folders, *files]:
        path = os.path.join(parent, name)
        try:
            facts = os.lstat(path)
            if mark in os.fsencode(name) or any(
                mark in os.getxattr(path, key) for key in os.listxattr(path, follow_symlinks=False)
                if not stat.S_ISLNK(facts.st_mode)
            ):
                found.append(path)
            theirs = path.startswith(("/usr/", "/etc/", "/opt/"))
            if not stat.S_ISREG(facts.st_mode) or (theirs and facts.st_ctime < since):
                continue
            with open(path, "rb") as file:
                read += 1
                if mark in file.read():
                    found.append(path)
        except OSError:
            pass
memory = mmap.mmap(-1, 64 << 20)
fd = os.open("fresh", os.O_RDWR | os.O_CREAT)
os.posix_fallocate(fd, 0, 16 << 20)
segments = len(open("/proc/sysvipc/shm").readlines()) - 1
print(json.dumps({"found": found, "read": read, "segments": segments,
    "memory": memory.read().count(0) == 64 << 20,
    "disk": os.read(fd, 16 << 20).count(0) == 16 << 20}))
"""


class _Book:
    """The little of the agent's book that scrubbing asks: what to keep, and that it was done."""

    def __init__(self) -> None:
        self.changes = 0

    def task(self, lease_id: str) -> Any:
        return SimpleNamespace(outputs=("out",))

    async def change(self, _step: Any) -> None:
        self.changes += 1


def _holding(folder: Path, mark: bytes) -> set[str]:
    """Files below a folder that hold the mark, or are named by it."""
    found = set()
    for path in folder.rglob("*"):
        if mark in os.fsencode(path.name) or (path.is_file() and mark in path.read_bytes()):
            found.add(str(path.relative_to(folder)))
    return found


@pytest.mark.parametrize("end", ["by itself", "its keeper was killed"])
@pytest.mark.parametrize("name", ["crun", "bubblewrap"])
async def test_the_next_tenant_finds_nothing(
    request: pytest.FixtureRequest, state_folder: Path, name: str, end: str
) -> None:
    runtime: Runtime = request.getfixturevalue(
        "crun_runtime" if name == "crun" else "bwrap_runtime"
    )
    state, mark, since = state_folder / "state", secrets.token_hex(16).encode(), int(time.time())
    place = World(Sandboxes(state, runtime), 60.0)
    files, book = LeaseFiles(state, kept_bytes=1 << 30, kept_hours=1), _Book()
    scrubber = Scrubber(book, place.sandboxes, files, SystemClock(), emulated=False)  # type: ignore[arg-type]  # a stand-in
    facts = {"mark": mark.hex(), "since": since, "waits": end != "by itself"}
    first = place.start(_LEAVES % facts, {}, 5)
    place.says(first, "left")
    if end != "by itself":
        keeper = shim.read_json(str(place.sandboxes.folder(first) / "shim.json")) or {}
        os.kill(keeper["pid"], signal.SIGKILL)
    place.ended(first)
    started = shim.read_json(str(place.sandboxes.folder(first) / "started.json")) or {}
    for _attempt in range(3):  # a scrub that fails is tried again: the guard may still be at work
        await scrubber.scrub([f"{SCRATCH}{first}"])
        if book.changes:
            break
    same = shim.start_ticks(started["init_pid"]) == started["init_ticks"]
    assert not same or shim.state_letter(started["init_pid"]) in "ZX", "clean, and yet it runs"

    kept = {f"kept/{first}/files/out/{path}" for path in ("kept", "deep/kept")}
    assert _holding(state, mark) == kept
    assert book.changes == 1
    second = place.start(_SEARCHES % facts, {}, 5)  # the same slot: the same host uids
    assert (place.sandboxes.folder(second) / "work").stat().st_uid == uid_base(SLOT + 5) + 1000
    place.ended(second)
    told = json.loads(place.log(second).splitlines()[-1])
    assert told.pop("read") >= 3, "its own files at least"
    assert told == {"found": [], "segments": 0, "memory": True, "disk": True}
    assert str(0x6D61726B) not in shim.read_text("/proc/sysvipc/shm")
    assert first not in shim.read_text("/proc/self/mountinfo")


_MOCK = """
name = "mock"
family = "gpu"
vendor = "mock"
kind = "mock.example/gpu"
present = ["sys/class/mock"]
[list]
glob = "sys/class/mock/*"
[list.fields]
index = { pattern = 'mock(\\d+)' }
id = {}
[hand]
nodes = []
[hand.env]
MOCK_DEVICE = "/memory"
[scrub]
by = "file"
path = "/memory{index}"
"""
_TO_DEVICE = """
import os
mark = bytes.fromhex(%r)
with open("/memory", "r+b") as memory:
    memory.write(mark * (os.fstat(memory.fileno()).st_size // len(mark)))
with open("scratch", "wb") as file: file.write(mark)
print("left on", os.environ["MOCK_DEVICE"])
"""
_FROM_DEVICE = """
memory = open("/memory", "rb").read()
print("clean" if memory.count(0) == len(memory) else "FOUND", len(memory))
"""


@dataclass
class _Device:
    """A node with one mock device (emulated), whose memory is a file."""

    memory: Path
    table: DeviceTable
    place: World
    book: Book
    scrubber: Scrubber
    keeper: DeviceKeeper

    def start(self, source: str) -> str:
        shown = (Mount(str(self.memory), "/memory", read_only=False),)
        return self.place.start(source, {}, 5, devices=("mock0",), mounts=shown)

    async def uses(self, source: str) -> str:
        """A tenant's lease from start to end; its id."""
        lease_id = self.start(source)
        now = Clocks("boot", 1, 1)
        row = Row(lease_id, ("mock0", scratch(lease_id)), "boot", 0, 60_000,
                  deadline=Deadline("boot", 1 << 60, 1 << 60))  # fmt: skip

        def started(spool: Spool) -> Spool:
            named = replace(spool, named=spool.named | {lease_id}).with_rows(row)
            assert lease.may_start(named, lease_id, now, ()), "it is not free"
            return lease.started(named, lease_id)

        await self.book.change(started)
        self.place.ended(lease_id)
        await self.book.change(lambda spool: lease.observe_exit(spool, lease_id, None))
        return lease_id

    async def scrub(self) -> None:
        await self.scrubber.scrub(self.scrubber.possible(self.book.spool.dirty))


@pytest.fixture
def device(state_folder: Path, crun_runtime: Runtime) -> Iterator[_Device]:
    root = Path(tempfile.mkdtemp(prefix="gridlease-mock-", dir="/var/tmp"))
    root.chmod(0o755)
    (root / "sys/class/mock/mock0").mkdir(parents=True)
    (root / "families").mkdir()
    (root / "families/mock.toml").write_text(_MOCK)
    memory = root / "memory0"
    memory.write_bytes(bytes(8 << 20))
    memory.chmod(0o666)
    families = load(root / "families")
    found = tuple(replace(x, emulated=True) for x in discover(root, families, {}))
    table = DeviceTable(families, found, root=root)
    state = state_folder / "state"
    place = World(Sandboxes(state, crun_runtime, table=table), 60.0)
    files = LeaseFiles(state, kept_bytes=1 << 30, kept_hours=1)
    store, keeper = SpoolFile(state / "spool.sqlite"), DeviceKeeper(table, kernel_log="/dev/null")
    spool = lease.new_spool("sp", ())
    store.write(None, spool, {}, {})
    book = Book(store, spool, {}, {})
    scrubber = Scrubber(book, place.sandboxes, files, ManualClock(), keeper=keeper)
    yield _Device(memory, table, place, book, scrubber, keeper)
    place.close()
    keeper.close()
    store.close()
    shutil.rmtree(root)


async def test_device_memory_is_wiped_and_the_receipt_proves_it(device: _Device) -> None:
    mark = secrets.token_hex(16).encode()
    first = await device.uses(_TO_DEVICE % mark.hex())
    assert "left on /memory" in device.place.log(first)
    assert mark in device.memory.read_bytes()
    await device.scrub()

    row = device.book.spool.rows[first]
    assert row.phase is Phase.CLEAN
    methods = {one.what: one.method for one in row.wiped}
    assert methods == {
        "scratch": "deleted",
        "shm": "namespace-ended",
        "secrets": "namespace-ended",
        "mock0": "emulated-file-pattern-readback",
    }
    store = SpoolFile(device.place.sandboxes.folder(first).parent.parent / "spool.sqlite")
    reread = store.read()
    store.close()
    assert reread is not None
    assert reread.spool.rows[first].wiped == row.wiped, "it outlasts the agent"

    seed, public_key = new_user_key()
    made = receipt(first, row.wiped, Signer(seed))
    pairs = list(zip(made.wiped, made.methods, strict=True))
    at_ns = made.verify_time.ToNanoseconds()
    assert verified(public_key, wipe_text(first, public_key, pairs, at_ns), made.signature)
    forged = [("mock1", method) if what == "mock0" else (what, method) for what, method in pairs]
    for lie in (
        wipe_text("ls-other", public_key, pairs, at_ns),
        wipe_text(first, public_key, forged, at_ns),
        wipe_text(first, public_key, pairs, at_ns + 1),
    ):
        assert not verified(public_key, lie, made.signature)
    assert not verified(new_user_key()[1], wipe_text(first, public_key, pairs, at_ns), b"")

    second = await device.uses(_FROM_DEVICE)
    assert device.place.log(second).splitlines()[-1] == f"clean {8 << 20}"


async def test_a_failed_scrub_keeps_the_device_out_of_stock(device: _Device) -> None:
    first = await device.uses(_TO_DEVICE % b"mark".hex())
    os.truncate(device.memory, 0)  # it does not answer as memory any more
    await device.scrub()
    assert device.book.spool.dirty == {"mock0"}
    assert device.book.spool.rows[first].phase is Phase.EXITED, "not clean, and so not gone"
    ailments = device.scrubber.ailments()
    assert ailments == {"mock0": "scrub-failed: it has no memory"}
    assert device.scrubber.possible({"mock0"}) == frozenset(), "tried again after a pause"

    with pytest.raises(AssertionError, match="not free"):
        await device.uses(_FROM_DEVICE)
    facts = replace(emulated.probe("a100", 0), devices=device.table.devices)
    lending = Lending(1, 1, "crun", (), "1")
    record = marked(
        inventory(facts, lending, [], device.book.spool.dirty),
        device.table.devices,
        ailments,
        {},
    )
    (told,) = scheduler_nodes.inventory(record).devices
    assert (told.clean, told.ailment) == (False, "scrub-failed: it has no memory")

    device.memory.write_bytes(b"mark" * (2 << 20))
    await device.scrubber.scrub({"mock0"})  # the operator has mended it
    assert device.book.spool.dirty == frozenset()
    assert device.scrubber.ailments() == {}
    assert device.memory.read_bytes().count(0) == 8 << 20
