"""Which keeper this host has: the static one, compiled here once, or else the one in Python.

The binary is named by what it is made from (sources, flags, compiler, architecture), so an update
of the agent or of the compiler makes another and leaves running ones alone. It lies in the node's
state folder; what one folder has, the next gets from the user's cache instead of the compiler.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import os
import platform
import shutil
import stat
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from gridlease_agent import shim

_LOG = logging.getLogger(__name__)
_SOURCES = Path(__file__).parent
_CONTRACT = "1\n"  # what the binary answers to --check contract
_COMPILERS = ("musl-gcc", "cc", "gcc", "clang")
_MACHINES = ("x86_64", "aarch64")
_BUILD_S = 120.0
WARNINGS = ("-Wall", "-Wextra", "-Werror", "-Wshadow", "-Wconversion")
_FLAGS = ("-std=c11", "-D_GNU_SOURCE", "-O2", "-static", "-s", "-fstack-protector-strong")


@dataclass(frozen=True, slots=True)
class Keeper:
    """How a task's keeper is started; no ``program``: the Python one, for the reason ``why``."""

    program: str = ""
    why: str = ""

    def argv(self, folder: Path) -> list[str]:
        """The command line of the keeper of one lease's folder."""
        if self.program:
            return [self.program, str(folder)]
        # ``python -I -S shim.py DIR``, but with the bytecode that importing it has cached.
        code = (
            "import sys; sys.path.append(sys.argv.pop(1)); import shim; "
            "sys.exit(shim.main(sys.argv))"
        )
        home = str(Path(shim.__file__).parent)
        return [sys.executable, "-I", "-S", "-c", code, home, str(folder)]

    @property
    def holds(self) -> bool:
        """Whether it can keep a sandbox that waits for its lease."""
        return bool(self.program)

    def unenforced(self) -> tuple[str, ...]:
        """For the node's inventory: what is missing, in words."""
        return () if self.program else (f"keeper: in Python, without warm sandboxes: {self.why}",)

    def launch(self, folder: Path) -> int:
        """Spawn it in a session of its own, with nothing of the agent's environment; its pid."""
        argv = self.argv(folder)
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
        return os.posix_spawn(argv[0], argv, environment, setsid=True)


def sources() -> list[Path]:
    """The C files, in a fixed order."""
    return sorted(path for path in _SOURCES.iterdir() if path.suffix in (".c", ".h"))


def keeper_for(state: Path, compiler: str | None = None, cache: Path | None = None) -> Keeper:
    """The keeper for the node with this state folder; compiles it where nobody has yet.

    Args:
        compiler: instead of the host's own, "" = none.
        cache: instead of the user's.
    """
    machine = platform.machine()
    if machine not in _MACHINES:
        return _python(f"{machine} is no architecture that it is made for")
    command = _compiler() if compiler is None else compiler
    if not command:
        return _python("this host has no C compiler")
    name = f"keeper-{_digest(command, machine)}"
    made = state / "keeper" / name
    if _usable(made):
        return Keeper(str(made))
    kept = (cache or _user_cache()) / name
    try:
        made.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not _trusted(kept) or not _copied(kept, made):
            _compile(command, made)
    except (OSError, subprocess.SubprocessError) as trouble:
        return _python(_words(trouble))
    if not _usable(made):
        return _python("what the compiler made does not run")
    if not _trusted(kept):
        with contextlib.suppress(OSError):
            kept.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            _copied(made, kept)
    return Keeper(str(made))


def _python(why: str) -> Keeper:
    _LOG.warning("tasks are kept by the larger keeper in Python: %s", why)
    return Keeper(why=why)


def _words(trouble: Exception) -> str:
    said = getattr(trouble, "stderr", None)
    lines = said.decode("utf-8", "replace").strip().splitlines() if said else []
    return next((line for line in lines if "error" in line), str(trouble))[:300]


def _compiler() -> str:
    for name in _COMPILERS:
        found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/bin")
        if found:
            return found
    return ""


def _user_cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or f"{Path.home()}/.cache"
    return Path(home) / "gridlease"


@functools.cache
def _digest(command: str, machine: str) -> str:
    facts = Path(command).stat()
    parts = hashlib.sha256(f"{command} {facts.st_size} {facts.st_mtime_ns} {machine}".encode())
    parts.update(" ".join(_FLAGS).encode())
    for path in sources():
        parts.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return parts.hexdigest()[:24]


def compile_to(command: str, target: Path, flags: tuple[str, ...] = _FLAGS) -> None:
    """Compile the sources with these flags.

    Raises:
        subprocess.SubprocessError: with the compiler's words in ``stderr``.
    """
    files = [str(path) for path in sources() if path.suffix == ".c"]
    subprocess.run(
        [command, *flags, *files, "-o", str(target)],
        check=True,
        capture_output=True,
        timeout=_BUILD_S,
        env={"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C"},
    )


def _compile(command: str, made: Path) -> None:
    # Whole or absent, also where two agents build at once.
    with tempfile.TemporaryDirectory(dir=made.parent, prefix=".build-") as folder:
        draft = Path(folder) / "keeper"
        compile_to(command, draft)
        draft.chmod(0o755)
        draft.replace(made)


def _trusted(path: Path) -> bool:
    """Ours, and nobody else could have written it."""
    with contextlib.suppress(OSError):
        facts, folder = path.lstat(), path.parent.stat()
        loose = stat.S_IWGRP | stat.S_IWOTH
        own = facts.st_uid == folder.st_uid == os.geteuid()
        return own and stat.S_ISREG(facts.st_mode) and not (facts.st_mode | folder.st_mode) & loose
    return False


def _copied(source: Path, target: Path) -> bool:
    """The same file under another name, linked where it can be: one in memory for all nodes."""
    draft = target.with_name(f".{target.name}.{os.getpid()}")
    with contextlib.suppress(OSError):
        draft.unlink(missing_ok=True)
        try:
            os.link(source, draft)
        except OSError:
            shutil.copy2(source, draft)
        draft.replace(target)
        draft.unlink(missing_ok=True)  # two names of one file: the rename has left both
        return True
    return False


def _usable(path: Path) -> bool:
    if not _trusted(path):
        return False
    command = [str(path), "--check", "contract"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(command, capture_output=True, check=True, timeout=10, env={})
        return done.stdout.decode() == _CONTRACT
    return False
