from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from gridlease_agent.adapters.lease_files import LeaseFiles, open_up
from gridlease_kernel.faults import Missing


def read(handle: int) -> bytes:
    with os.fdopen(handle, "rb") as file:
        return file.read()


def ended(tmp_path: Path, lease: str = "ls-1", kept_bytes: int = 10_000) -> LeaseFiles:
    files = LeaseFiles(tmp_path, kept_bytes=kept_bytes, kept_hours=1)
    os.close(files.prepare(lease, ["gpu-0"]))
    work = tmp_path / "leases" / lease / "work"
    (work / "out").mkdir()
    (work / "out" / "a").write_bytes(b"abc")
    (work / "model.bin").write_bytes(b"model")
    (work / "other").write_bytes(b"other")
    (work / "link").symlink_to("/etc/passwd")
    (work.parent / "log").write_bytes(b"log")
    return files


def test_outputs_are_kept_with_their_digests(tmp_path: Path) -> None:
    files = ended(tmp_path)
    kept = files.keep("ls-1", ["out", "*.bin", "link", "../../spool.sqlite", "/etc/passwd"])
    assert [one.path for one in kept] == ["model.bin", "out/a"]
    assert kept[1].sha256 == hashlib.sha256(b"abc").hexdigest()
    assert files.artefacts("ls-1") == kept
    files.discard("ls-1")
    log = files.open_log("ls-1")
    assert log is not None
    assert read(log) == b"log"
    assert read(files.open_artefact("ls-1", "out/a")) == b"abc"


def test_keeping_may_be_repeated(tmp_path: Path) -> None:
    files = ended(tmp_path)
    first = files.keep("ls-1", ["out"])
    assert files.keep("ls-1", ["out"]) == first


def test_outputs_may_be_named_from_the_working_folder(tmp_path: Path) -> None:
    assert [one.path for one in ended(tmp_path).keep("ls-1", ["/work/out/"])] == ["out/a"]


def test_only_what_is_listed_can_be_named(tmp_path: Path) -> None:
    files = ended(tmp_path)
    files.keep("ls-1", ["out"])
    for path in ("other", "../log", "out/../../log", "/etc/passwd", "out"):
        with pytest.raises(Missing):
            files.open_artefact("ls-1", path)


def test_the_oldest_goes_where_the_quota_is_passed(tmp_path: Path) -> None:
    files = ended(tmp_path, "ls-1")
    (tmp_path / "leases" / "ls-1" / "work" / "big").write_bytes(b"x" * 6000)
    files.keep("ls-1", ["big"])
    os.utime(tmp_path / "kept" / "ls-1", (1, 1))
    ended(tmp_path, "ls-2")
    (tmp_path / "leases" / "ls-2" / "work" / "big").write_bytes(b"x" * 6000)
    files.keep("ls-2", ["big"])
    assert not (tmp_path / "kept" / "ls-1").exists()
    assert files.artefacts("ls-2")


def test_an_output_above_the_quota_is_left_out(tmp_path: Path) -> None:
    files = ended(tmp_path, kept_bytes=100)
    (tmp_path / "leases" / "ls-1" / "work" / "big").write_bytes(b"x" * 6000)
    assert [one.path for one in files.keep("ls-1", ["big", "out"])] == ["out/a"]


def test_what_is_too_old_goes(tmp_path: Path) -> None:
    files = ended(tmp_path)
    files.keep("ls-1", [])
    at = (tmp_path / "kept" / "ls-1").stat().st_mtime_ns
    assert files.prune(now_ns=at + 3_599 * 10**9) == []
    assert files.prune(now_ns=at + 3_601 * 10**9) == ["ls-1"]


def test_devices_are_remembered_without_a_spool(tmp_path: Path) -> None:
    assert ended(tmp_path).held("ls-1") == ("gpu-0",)


def test_folders_that_a_task_has_shut_are_opened(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "file").write_bytes(b"x")
    (tmp_path / "a" / "link").symlink_to("/etc/passwd")
    before = Path("/etc/passwd").stat().st_mode
    for path in ("a/b/file", "a/b", "a"):
        (tmp_path / path).chmod(0)
    open_up(tmp_path / "a")
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "a" / "b" / "file").stat().st_mode & 0o777 == 0o600
    assert Path("/etc/passwd").stat().st_mode == before
