"""Reading from a folder that is another's: nothing is followed, waited for, or read whole."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from gridlease_agent.adapters.lease_files import LeaseFiles
from gridlease_agent.adapters.report_folder import FOLDER, ReportFolders
from gridlease_agent.domain.progress import Progress, TaskReport

LEASE = "ls-1"
NOTHING = TaskReport()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / LEASE / "work").mkdir(parents=True)
    ReportFolders(tmp_path).make(LEASE)
    return tmp_path / LEASE / "work" / FOLDER


@pytest.fixture
def reports(tmp_path: Path) -> ReportFolders:
    return ReportFolders(tmp_path)


def look(reports: ReportFolders) -> TaskReport:
    return reports.read([LEASE])[LEASE]


def saves(folder: Path, name: str, at_ns: int | None = None) -> None:
    """As a task should: whole, then renamed."""
    new = folder / "new"
    new.write_text(json.dumps({"id": name}))
    if at_ns is not None:
        os.utime(new, ns=(at_ns, at_ns))
    new.replace(folder / "checkpoint.json")


def saved(report: TaskReport) -> str:
    return report.checkpoint.id if report.checkpoint else ""


def test_a_task_tells(folder: Path, reports: ReportFolders) -> None:
    assert look(reports) == NOTHING
    saves(folder, "a", 7_000_000_000)
    (folder / "progress.json").write_text('{"steps": 3, "step_ms": 2}')
    report = look(reports)
    assert report.checkpoint is not None
    assert (report.checkpoint.id, report.checkpoint.saved_ns) == ("a", 7_000_000_000)
    assert report.progress == Progress(3, 2_000_000)
    saves(folder, "b")
    assert saved(look(reports)) == "b"
    assert look(reports).progress == Progress(3, 2_000_000)


def test_the_newest_stays_told_until_the_lease_is_gone(
    folder: Path, reports: ReportFolders
) -> None:
    saves(folder, "a")
    assert saved(look(reports)) == "a"
    (folder / "checkpoint.json").unlink()
    assert saved(look(reports)) == "a"
    folder.rmdir()
    assert saved(reports.last(LEASE)) == "a"
    assert reports.read([]) == {}
    assert look(reports) == NOTHING


def test_one_bad_word_leaves_the_one_before_and_is_logged_once(
    folder: Path, reports: ReportFolders, caplog: pytest.LogCaptureFixture
) -> None:
    saves(folder, "a")
    look(reports)
    for content in ("{", "[]", '{"id": 5}'):
        (folder / "checkpoint.json").write_text(content)
        (folder / "progress.json").write_text('{"steps": -1}')
        assert look(reports).progress is None
        assert saved(look(reports)) == "a"
    assert len(caplog.records) == 1
    saves(folder, "b")
    assert saved(look(reports)) == "b"


@pytest.mark.parametrize("at_ns", [-(10**18), 4 * 10**18])
def test_a_time_that_cannot_be_is_drawn_in(
    folder: Path, reports: ReportFolders, at_ns: int
) -> None:
    saves(folder, "a", at_ns)
    told = look(reports).checkpoint
    assert told is not None
    assert 0 <= told.saved_ns <= time.time_ns()


def _link(path: Path) -> None:
    outside = path.parent.parent.parent / "secret.json"
    outside.write_text('{"id": "secret"}')
    path.symlink_to(outside)


def _socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # a socket's name must be short
    try:
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(path.name)
    finally:
        os.chdir(here)


def _device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _huge(path: Path) -> None:
    path.write_text('{"id": "a"}' + " " * 4096)


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


def _deep(path: Path) -> None:
    path.write_text("[" * 4096)


HOSTILE: list[Callable[[Path], None]] = [
    _link,
    os.mkfifo,
    _socket,
    _device,
    _huge,
    _sparse,
    _deep,
    Path.mkdir,
]


@pytest.mark.parametrize("make", HOSTILE)
def test_what_is_no_small_regular_file_is_no_report(
    folder: Path, reports: ReportFolders, make: Callable[[Path], None]
) -> None:
    make(folder / "checkpoint.json")
    make_two = make if make is not _link else _device
    make_two(folder / "progress.json")
    began = time.monotonic()
    assert look(reports) == NOTHING
    assert time.monotonic() - began < 1


@pytest.mark.root
def test_a_device_is_not_opened(folder: Path, reports: ReportFolders) -> None:
    try:
        os.mknod(folder / "checkpoint.json", 0o020666, os.makedev(1, 5))
    except PermissionError:
        pytest.skip("this root may not make devices")
    assert look(reports) == NOTHING


def test_a_link_in_the_folders_own_place_is_not_followed(
    folder: Path, reports: ReportFolders, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    folder.rename(other)
    saves(other, "secret")
    folder.symlink_to(other)
    assert look(reports) == NOTHING


def test_a_swap_between_look_and_open_ends_at_nothing(folder: Path, reports: ReportFolders) -> None:
    """A thread swaps a good file for a FIFO, a link and a huge one, as fast as it can."""
    over = threading.Event()
    path = folder / "checkpoint.json"

    def swap() -> None:
        while not over.is_set():
            for make in (lambda p: saves(folder, "good"), os.mkfifo, _link, _huge):
                path.unlink(missing_ok=True)
                make(path)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        began = time.monotonic()
        seen = {saved(look(ReportFolders(folder.parents[2]))) for _ in range(500)}
        assert time.monotonic() - began < 20
    finally:
        over.set()
        thread.join()
    assert seen <= {"", "good", "a"}  # "a": the huge one, met while it was still small


def test_what_has_not_changed_is_not_read_again(
    folder: Path, reports: ReportFolders, monkeypatch: pytest.MonkeyPatch
) -> None:
    saves(folder, "a")
    now_ns = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: now_ns + 2_000_000_000)
    assert saved(look(reports)) == "a"
    reads = []
    monkeypatch.setattr(os, "read", lambda *words: reads.append(words))
    assert saved(look(reports)) == "a"
    assert reads == []


def test_a_bundle_brings_no_reports(folder: Path, reports: ReportFolders) -> None:
    saves(folder, "of another run")
    reports.make(LEASE)
    assert list(folder.iterdir()) == []
    folder.rmdir()
    folder.symlink_to("/etc")
    reports.make(LEASE)
    assert folder.is_dir()
    assert not folder.is_symlink()


def test_the_folder_is_never_kept(tmp_path: Path) -> None:
    files = LeaseFiles(tmp_path, kept_bytes=10_000, kept_hours=1)
    os.close(files.prepare(LEASE, []))
    work = tmp_path / "leases" / LEASE / "work"
    files.reports.make(LEASE)
    saves(work / FOLDER, "a")
    (work / "out").write_text("out")
    assert [one.path for one in files.keep(LEASE, ["*", ".", FOLDER])] == ["out"]
