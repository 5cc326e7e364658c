"""What one tenant leaves behind, the next one does not find, nor does the node keep it."""

from __future__ import annotations

import json
import os
import secrets
import signal
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from gridlease_agent import shim
from gridlease_agent.adapters.lease_files import LeaseFiles
from gridlease_agent.domain.task import SCRATCH
from gridlease_agent.runtimes.choose import Runtime
from gridlease_agent.runtimes.spec import uid_base
from gridlease_agent.sandbox import Sandboxes
from gridlease_agent.scrub import Scrubber
from gridlease_kernel.clock import SystemClock

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
