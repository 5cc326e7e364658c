from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from gridlease_agent.adapters.bundles import BundleFolder, unpack
from gridlease_kernel.faults import Fault


def packed(tmp_path: Path, *members: tarfile.TarInfo, mode: str = "w:gz") -> Path:
    path = tmp_path / "bundle"
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload] # a mode as text
        for member in members:
            archive.addfile(member, io.BytesIO(b"x" * member.size))
    return path


def file(name: str, size: int = 1, mode: int = 0o644) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, mode
    return info


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_files_folders_and_inner_links_come_out(tmp_path: Path, mode: str) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    members = (
        special("a", tarfile.DIRTYPE),
        file("a/b/c", 5),
        file("run", 1, 0o4755),
        special("a/link", tarfile.SYMTYPE, "../run"),
    )
    unpack(packed(tmp_path, *members, mode=mode), folder, 1000)
    assert (folder / "a/b/c").read_bytes() == b"xxxxx"
    assert (folder / "a/link").resolve() == folder / "run"
    assert (folder / "run").stat().st_mode & 0o7777 == 0o755


@pytest.mark.parametrize(
    "member",
    [
        file("/etc/x"),
        file("../x"),
        file("a/../../x"),
        special("x", tarfile.SYMTYPE, "/etc/passwd"),
        special("a/x", tarfile.SYMTYPE, "../../x"),
        special("x", tarfile.LNKTYPE, "y"),
        special("x", tarfile.CHRTYPE),
        special("x", tarfile.BLKTYPE),
        special("x", tarfile.FIFOTYPE),
    ],
    ids=lambda member: f"{member.name}-{member.linkname}-{member.type!r}",
)
def test_nothing_leaves_the_folder(tmp_path: Path, member: tarfile.TarInfo) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    with pytest.raises(Fault) as trouble:
        unpack(packed(tmp_path, member), folder, 1000)
    assert trouble.value.reason == "BUNDLE_UNSAFE"
    assert not (tmp_path / "x").exists()


def test_nothing_goes_through_a_link(tmp_path: Path) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    members = (special("d", tarfile.DIRTYPE), special("l", tarfile.SYMTYPE, "d"), file("l/x"))
    with pytest.raises(Fault) as trouble:
        unpack(packed(tmp_path, *members), folder, 1000)
    assert trouble.value.reason == "BUNDLE_UNSAFE"


@pytest.mark.parametrize("name", ["x", "l"])
def test_a_name_that_comes_twice_is_refused(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    members = (file("x"), special("l", tarfile.SYMTYPE, "x"), file(name))
    with pytest.raises(Fault) as trouble:
        unpack(packed(tmp_path, *members), folder, 1000)
    assert trouble.value.reason == "BUNDLE_CORRUPT"


def test_a_bomb_is_stopped_before_it_is_written(tmp_path: Path) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    with pytest.raises(Fault) as trouble:
        unpack(packed(tmp_path, file("a", 600), file("b", 600)), folder, 1000)
    assert trouble.value.reason == "BUNDLE_TOO_LARGE"
    assert not (folder / "b").exists()


def test_noise_is_refused(tmp_path: Path) -> None:
    (tmp_path / "noise").write_bytes(b"\x1f\x8bnoise")
    with pytest.raises(Fault) as trouble:
        unpack(tmp_path / "noise", tmp_path, 1000)
    assert trouble.value.reason == "BUNDLE_CORRUPT"


class Store:
    def __init__(self, content: bytes) -> None:
        self.content = content
        self.reads = 0

    async def read(self, digest: str) -> AsyncIterator[bytes]:
        self.reads += 1
        yield self.content[:3]
        yield self.content[3:]


def digest_of(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


async def test_a_bundle_is_fetched_once(tmp_path: Path) -> None:
    store = Store(b"content")
    folder = BundleFolder(tmp_path / "bundles", store.read)
    for _ in range(2):
        assert (await folder.fetch(digest_of(b"content"))).read_bytes() == b"content"
    assert store.reads == 1


async def test_content_of_another_digest_is_refused(tmp_path: Path) -> None:
    folder = BundleFolder(tmp_path / "bundles", Store(b"other").read)
    with pytest.raises(Fault) as trouble:
        await folder.fetch(digest_of(b"content"))
    assert trouble.value.reason == "BUNDLE_CORRUPT"
    assert list((tmp_path / "bundles").iterdir()) == []


@pytest.mark.parametrize("digest", ["", "sha256:", "md5:" + "0" * 64, "sha256:" + "../" * 21 + "x"])
async def test_a_digest_is_no_path(tmp_path: Path, digest: str) -> None:
    folder = BundleFolder(tmp_path / "bundles", Store(b"").read)
    with pytest.raises(Fault) as trouble:
        await folder.fetch(digest)
    assert trouble.value.reason == "BAD_DIGEST"


async def test_the_cache_lets_the_oldest_go(tmp_path: Path) -> None:
    contents = [bytes([n]) * 10 for n in range(3)]
    for content in contents:
        folder = BundleFolder(tmp_path / "bundles", Store(content).read, cache_bytes=25)
        await folder.fetch(digest_of(content))
    assert len(list((tmp_path / "bundles").iterdir())) == 2
