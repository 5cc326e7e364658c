"""A bundle depends on the files' content alone, and never leaves its folder."""

import io
import os
import tarfile

import pytest
from gridlease_kernel.faults import Invalid, Missing, TooLarge
from gridlease_sdk import bundle


def tree(folder):
    (folder / "src" / "deep").mkdir(parents=True)
    (folder / "src" / "train.py").write_text("print(1)\n")
    (folder / "src" / "run.sh").write_text("#!/bin/sh\n")
    (folder / "src" / "run.sh").chmod(0o775)
    (folder / "src" / "deep" / "x").write_bytes(bytes(1_000))
    (folder / "src" / "link").symlink_to("train.py")
    (folder / "src" / "empty").mkdir()
    for hidden in (".git", "__pycache__"):
        (folder / "src" / hidden).mkdir()
        (folder / "src" / hidden / "config").write_text("secret")
    return folder / "src"


def members(content):
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        return {it.name: it for it in archive}


def test_the_same_files_are_the_same_bytes(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    first, second = tree(one), tree(two)
    os.utime(first / "train.py", (1, 1))
    (second / "train.py").chmod(0o600)
    assert bundle.build({".": first}) == bundle.build({".": second})
    found = members(bundle.build({".": first}))
    assert sorted(found) == ["deep/x", "empty", "link", "run.sh", "train.py"]
    assert (found["run.sh"].mode, found["train.py"].mode) == (0o755, 0o644)
    assert found["link"].issym()
    assert {(it.uid, it.gid, it.mtime, it.uname) for it in found.values()} == {(0, 0, 0, "")}


def test_files_beside_the_folder(tmp_path):
    source = tree(tmp_path)
    found = members(bundle.build({"code/a.py": source / "train.py", "data": source / "deep"}))
    assert sorted(found) == ["code/a.py", "data/x"]


@pytest.mark.parametrize("name", ["../up", "/etc", ""])
def test_paths_that_leave(tmp_path, name):
    with pytest.raises(Invalid) as caught:
        bundle.build({name: tree(tmp_path)})
    assert caught.value.reason == "BUNDLE_UNSAFE"


@pytest.mark.parametrize("target", ["/etc/passwd", "../../etc/passwd"])
def test_links_that_leave(tmp_path, target):
    source = tree(tmp_path)
    (source / "bad").symlink_to(target)
    with pytest.raises(Invalid) as caught:
        bundle.build({".": source})
    assert caught.value.reason == "BUNDLE_UNSAFE"


def test_what_is_neither_file_nor_folder(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(Invalid):
        bundle.build({".": tmp_path})


def test_too_large_and_missing(tmp_path):
    with pytest.raises(Missing):
        bundle.build({"x": tmp_path / "none"})
    with (tmp_path / "big").open("wb") as out:
        out.truncate(33 << 20)
    with pytest.raises(TooLarge) as caught:
        bundle.build({".": tmp_path})
    assert caught.value.reason == "BUNDLE_TOO_LARGE"
