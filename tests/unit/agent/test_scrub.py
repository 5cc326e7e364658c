from __future__ import annotations

import os
from pathlib import Path

import pytest
from gridlease_agent.adapters.lease_files import LeaseFiles
from gridlease_agent.adapters.spool_file import SpoolFile
from gridlease_agent.book import Book
from gridlease_agent.domain import lease
from gridlease_agent.domain.task import scratch
from gridlease_agent.noop import NoopSandboxes
from gridlease_agent.scrub import Scrubber
from gridlease_kernel.clock import ManualClock


def scrubber(tmp_path: Path, *, emulated: bool) -> tuple[Book, Scrubber]:
    store = SpoolFile(tmp_path / "spool.sqlite")
    spool = lease.new_spool("sp-1", ["gpu-0", scratch("ls-1")])
    store.write(None, spool, {}, {})
    book = Book(store, spool, {}, {})
    files = LeaseFiles(tmp_path, kept_bytes=1000, kept_hours=1)
    os.close(files.prepare("ls-1", ["gpu-0"]))
    return book, Scrubber(book, NoopSandboxes(), files, ManualClock(), emulated=emulated)


@pytest.mark.parametrize(("emulated", "left"), [(True, set()), (False, {"gpu-0"})])
async def test_a_device_without_a_verified_scrub_stays_dirty(
    tmp_path: Path, emulated: bool, left: set[str]
) -> None:
    book, one = scrubber(tmp_path, emulated=emulated)
    await one.scrub(one.possible(book.spool.dirty))
    assert book.spool.dirty == left
    assert not (tmp_path / "leases" / "ls-1").exists()
