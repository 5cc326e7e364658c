"""The virtual machine's whole disk: an archive of this host's own files, unpacked by the kernel."""

from __future__ import annotations

import os
import re
import stat
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[3]
HOME = "/opt/gridlease"
_PROGRAMS = ("python3", "crun", "sh", "sleep", "id", "cp", "chmod", "env", "true", "cat")
_STDLIB_LEFT_OUT = {
    "test", "idlelib", "tkinter", "lib2to3", "distutils", "ensurepip", "turtledemo", "pydoc_data",
    "config-3.11-x86_64-linux-gnu", "curses", "sqlite3", "xml", "xmlrpc", "wsgiref",
    "dist-packages",
}  # fmt: skip
_OWN = (
    "services/node-agent/gridlease_agent",
    "libs/kernel/gridlease_kernel",
    "libs/testkit/gridlease_testkit",
    "tests/escape",
)
_EMPTY = (
    "proc", "sys", "dev", "run", "tmp", "etc", "root", "var", "var/lib", "root-of-all",
)  # fmt: skip


def _libraries(binaries: Iterable[str]) -> set[str]:
    """What the dynamic linker would load for them, links followed one by one."""
    said = subprocess.run(
        ["ldd", *binaries], capture_output=True, text=True, timeout=60, check=False
    ).stdout
    return set(re.findall(r"(/\S+\.so\S*) \(0x", said))


def _standard_library(folder: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(set(folders) - _STDLIB_LEFT_OUT)
        yield Path(parent)
        yield from (Path(parent) / name for name in files)


def _host_files() -> set[Path]:
    """Python, crun, a shell and a few programs, with every library they need."""
    programs = [f"/usr/bin/{name}" for name in _PROGRAMS]
    python = Path("/usr/bin/python3").resolve()
    library = Path("/usr/lib") / python.name
    files = {*_standard_library(library)}
    modules = [str(path) for path in files if path.suffix == ".so"]
    names = [name for name in [*programs, *modules] if Path(name).exists()]
    for name in [*programs, *_libraries([os.path.realpath(name) for name in names])]:
        path = _settled(Path(name))
        while path.is_symlink():
            files.add(path)
            path = _settled(path.parent / path.readlink())
        files.add(path)
    return {path for path in files if path.exists()}


def _settled(path: Path) -> Path:
    """The path without links among its folders; the last part may be one."""
    return path.parent.resolve() / path.name


def _entry(name: str, mode: int, data: bytes, mtime: int, number: int) -> bytes:
    """One member. Source: cpio(5), "New ASCII Format"."""
    encoded = name.encode() + b"\0"
    fields = (number, mode, 0, 0, 1, mtime, len(data), 0, 0, 0, 0, len(encoded), 0)
    head = b"070701" + b"".join(b"%08x" % value for value in fields) + encoded
    return head + b"\0" * (-len(head) % 4) + data + b"\0" * (-len(data) % 4)


def _content(path: Path) -> tuple[int, bytes]:
    facts = path.lstat()
    if stat.S_ISLNK(facts.st_mode):
        return facts.st_mode, os.fsencode(path.readlink())
    if stat.S_ISDIR(facts.st_mode):
        return stat.S_IFDIR | 0o755, b""
    return stat.S_IFREG | (facts.st_mode & 0o755) | 0o444, path.read_bytes()


def _members() -> Iterator[tuple[str, Path]]:
    """(name in the archive, the host's file) of everything but the empty folders."""
    for name in ("bin", "sbin", "lib", "lib64"):
        yield name, Path("/", name)
    for path in sorted(_host_files()):
        yield str(path).lstrip("/"), path
    for own in _OWN:
        for parent, folders, files in os.walk(ROOT / own):
            folders.sort()
            for path in [Path(parent), *(Path(parent) / name for name in sorted(files))]:
                yield f"{HOME.lstrip('/')}/{path.relative_to(ROOT)}", path


def write(target: Path) -> None:
    """The archive, ready for ``-initrd``."""
    done: set[str] = set()
    folder = stat.S_IFDIR | 0o755
    with target.open("wb") as file:
        for name in _EMPTY:
            file.write(_entry(name, folder, b"", 0, len(done)))
            done.add(name)
        for name, path in _members():
            missing = [str(parent) for parent in reversed(Path(name).parents[:-1])]
            for parent in [each for each in missing if each not in done]:
                file.write(_entry(parent, folder, b"", 0, len(done)))
                done.add(parent)
            if name in done:
                continue
            mode, data = _content(path)
            file.write(_entry(name, mode, data, int(path.lstat().st_mtime), len(done)))
            done.add(name)
        first = f"#!/usr/bin/python3 -I\n{Path(__file__).with_name('first.py').read_text()}"
        file.write(_entry("init", stat.S_IFREG | 0o755, first.encode(), 0, len(done)))
        file.write(_entry("TRAILER!!!", 0, b"", 0, 0))
