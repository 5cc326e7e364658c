"""Prepared Python environments, by the hash of their lock file.

An environment carries its own interpreter (binary, standard library, libpython where it is
shared): nothing in it links into a folder that a sandbox's user could not enter, and the same
interpreter runs whatever the host's /usr holds. Inside a sandbox it lies at ``ENV_PATH``, and the
interpreter finds its library by its own place, so no PYTHONHOME is needed.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from gridlease_kernel.faults import Fault, Invalid, Precondition

from gridlease_agent.runtimes.spec import ENV_PATH

Progress = Callable[[str], None]
_PIP_PATIENCE_S = 900.0
_STEP_PATIENCE_S = 120.0
_LOCK_LIMIT_BYTES = 4 << 20
# Parts of the standard library that no task needs, and what the packages replace.
_LEAVE_OUT = shutil.ignore_patterns(
    "test", "tests", "idlelib", "turtledemo", "tkinter", "ensurepip", "site-packages",
    "dist-packages", "config-*", "EXTERNALLY-MANAGED", "*.a", "lib2to3",
)  # fmt: skip
_ASK = """
import json, sys, sysconfig
v = sysconfig.get_config_vars()
print(json.dumps({
    "version": "%d.%d" % sys.version_info[:2],
    "full": sys.version.split()[0],
    "binary": getattr(sys, "_base_executable", "") or sys.executable,
    "stdlib": sysconfig.get_path("stdlib"),
    "dynload": sysconfig.get_config_var("DESTSHARED") or "",
    "shared": bool(v.get("Py_ENABLE_SHARED")),
    "library": v.get("INSTSONAME") or v.get("LDLIBRARY") or "",
    "libdir": v.get("LIBDIR") or "",
}))
"""


@dataclass(frozen=True, slots=True)
class Environment:
    """One prepared environment: where it lies, and the variables a task needs beside PATH."""

    lock_sha256: str
    folder: Path
    python: str
    env: tuple[tuple[str, str], ...]


def lock_sha256(lock_file: Path) -> str:
    """The name of a lock: what a job's ``runtime`` says."""
    return hashlib.sha256(_read_lock(lock_file)).hexdigest()


def _read_lock(lock_file: Path) -> bytes:
    try:
        with lock_file.open("rb") as file:
            data = file.read(_LOCK_LIMIT_BYTES + 1)
    except OSError as trouble:
        raise Invalid(
            f"The lock file {lock_file} cannot be read: {trouble.strerror}.",
            reason="LOCK_UNREADABLE",
            field="lock_file",
            remedy="Name a requirements file with hashes.",
        ) from trouble
    if len(data) > _LOCK_LIMIT_BYTES:
        raise Invalid(
            f"The lock file {lock_file} is larger than {_LOCK_LIMIT_BYTES} bytes.",
            reason="LOCK_TOO_LARGE",
            field="lock_file",
        )
    return data


def available(state_dir: Path) -> list[Environment]:
    """Every environment that is ready under ``state_dir``."""
    found = (_load(folder) for folder in sorted((state_dir / "environments").glob("[0-9a-f]*")))
    return [environment for environment in found if environment is not None]


def find(state_dir: Path, sha256: str) -> Environment | None:
    """The environment of a lock's hash (or its first 16 letters), if it is ready."""
    environment = _load(state_dir / "environments" / sha256[:16])
    return environment if environment and environment.lock_sha256.startswith(sha256) else None


def _load(folder: Path) -> Environment | None:
    try:
        facts = json.loads((folder / "environment.json").read_text("utf-8"))
    except (OSError, ValueError):
        return None
    env = tuple(sorted(facts["env"].items()))
    return Environment(facts["lock_sha256"], folder.absolute(), facts["python"], env)


def prepare(
    lock_file: Path,
    state_dir: Path,
    python: str = sys.executable,
    progress: Progress = lambda _line: None,
) -> Environment:
    """The lock's environment, made now if it is not there yet; safe to call twice at once.

    Args:
        python: the interpreter to copy; its own pip is used if it has one, else this process's.

    Raises:
        Invalid: LOCK_UNREADABLE, LOCK_TOO_LARGE.
        Precondition: ENVIRONMENT_FAILED, with the last words of the step that failed.
    """
    sha256 = lock_sha256(lock_file)
    parent = state_dir.absolute() / "environments"
    parent.mkdir(parents=True, exist_ok=True, mode=0o755)
    final = parent / sha256[:16]
    with _alone(parent / f".{sha256[:16]}.lock"):
        ready = _load(final)
        if ready is not None:
            return ready
        build = parent / f".{sha256[:16]}.build"
        shutil.rmtree(build, ignore_errors=True)
        try:
            _build(build, lock_file.absolute(), sha256, python, progress)
        except OSError as trouble:
            raise _failed(f"{trouble.filename or build}: {trouble.strerror}") from trouble
        shutil.rmtree(final, ignore_errors=True)
        build.rename(final)
    ready = _load(final)
    assert ready is not None, final
    return ready


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _failed(words: str) -> Precondition:
    return Precondition(
        f"The Python environment could not be prepared: {words}",
        reason="ENVIRONMENT_FAILED",
        remedy="Check the disk, the network and the lock file, then start again.",
    )


def _build(build: Path, lock_file: Path, sha256: str, python: str, progress: Progress) -> None:
    facts = json.loads(_run([python, "-I", "-c", _ASK]))
    progress(f"copying Python {facts['full']}")
    library = build / "lib" / f"python{facts['version']}"
    env = _copy_interpreter(build, library, facts)
    packages = library / "site-packages"
    packages.mkdir()
    # Debian's interpreter looks for dist-packages where others look for site-packages.
    (library / "dist-packages").symlink_to("site-packages")
    _install(lock_file, packages, python, facts["version"], progress)
    _adopt_scripts(packages / "bin", build / "bin")
    progress("compiling")
    interpreter = str(build / "bin" / "python3")
    step = [interpreter, "-I", "-m", "compileall", "-q", "-j", "0", str(library)]
    # Some packages carry templates that are no Python: what cannot be compiled is skipped.
    subprocess.run(
        step, env=env | _plain(), check=False, timeout=_STEP_PATIENCE_S * 4, capture_output=True
    )
    inside = {name: text.replace(str(build), ENV_PATH) for name, text in env.items()}
    _open_to_all(build)
    record = {"lock_sha256": sha256, "python": facts["full"], "env": inside}
    (build / "environment.json").write_text(json.dumps(record, indent=1), "utf-8")
    _run([interpreter, "-I", "-c", "import encodings, json, ssl"], env=env | _plain())


def _plain() -> dict[str, str]:
    return {"PATH": "/usr/bin:/bin"}


def _copy_interpreter(build: Path, library: Path, facts: dict[str, Any]) -> dict[str, str]:
    """Binary, standard library and libpython; the variables that the interpreter then needs."""
    shutil.copytree(
        facts["stdlib"], library, ignore=_LEAVE_OUT, symlinks=False, ignore_dangling_symlinks=True
    )
    dynload = Path(facts["dynload"]) if facts["dynload"] else None
    if dynload and dynload.is_dir() and not (library / "lib-dynload").is_dir():
        shutil.copytree(dynload, library / "lib-dynload", symlinks=False)
    (build / "bin").mkdir()
    name = f"python{facts['version']}"
    shutil.copy2(Path(facts["binary"]).resolve(), build / "bin" / name)
    for link in ("python3", "python"):
        (build / "bin" / link).symlink_to(name)
    shared = Path(facts["libdir"]) / facts["library"]
    if facts["shared"] and ".so" in facts["library"] and shared.is_file():
        shutil.copy2(shared.resolve(), build / "lib" / facts["library"])
        return {"LD_LIBRARY_PATH": str(build / "lib")}
    return {}


def _install(
    lock_file: Path, packages: Path, python: str, version: str, progress: Progress
) -> None:
    lines = lock_file.read_text("utf-8").splitlines()
    if not any(line.strip() and not line.strip().startswith("#") for line in lines):
        return
    command = [_pip_python(python), "-I", "-m", "pip", "install", "--disable-pip-version-check"]
    command += ["--no-input", "--require-hashes", "--only-binary=:all:", "--no-deps"]
    command += ["--no-compile", "--no-warn-script-location", "--progress-bar=off"]
    command += ["--target", str(packages), "-r", str(lock_file)]
    if command[0] != python:
        command += ["--python-version", version, "--implementation", "cp"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as pip:
        assert pip.stdout is not None
        last = ""
        for line in pip.stdout:
            if line.strip():
                last = line.strip()
                progress(last)
        if pip.wait(timeout=_PIP_PATIENCE_S):
            raise _failed(last)


def _pip_python(python: str) -> str:
    """Debian's interpreter may come without pip: then this process's pip serves it."""
    has = subprocess.run(
        [python, "-I", "-m", "pip", "--version"],
        capture_output=True,
        check=False,
        timeout=_STEP_PATIENCE_S,
    )
    return python if has.returncode == 0 else sys.executable


def _adopt_scripts(source: Path, target: Path) -> None:
    """Console scripts, told where the interpreter will lie inside a sandbox."""
    if not source.is_dir():
        return
    for script in source.iterdir():
        data = script.read_bytes()
        first, _newline, rest = data.partition(b"\n")
        if first.startswith(b"#!") and b"python" in first:
            data = b"#!" + f"{ENV_PATH}/bin/python3".encode() + b"\n" + rest
        if not (target / script.name).exists():
            (target / script.name).write_bytes(data)
            (target / script.name).chmod(0o755)
    shutil.rmtree(source)


def _open_to_all(build: Path) -> None:
    """Readable by a user that owns nothing here, whatever the umask was."""
    for parent, _folders, files in os.walk(build):
        Path(parent).chmod(0o755)
        for name in files:
            path = Path(parent) / name
            if not path.is_symlink():
                path.chmod((path.stat().st_mode | 0o444) & 0o755)


def _run(command: list[str], env: dict[str, str] | None = None) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=_STEP_PATIENCE_S, env=env
        )
    except subprocess.TimeoutExpired as trouble:
        raise _failed(f"{command[0]} did not answer in {_STEP_PATIENCE_S} s") from trouble
    if done.returncode:
        raise _failed((done.stderr.strip().splitlines() or [f"{command[0]} failed"])[-1])
    return done.stdout


def give_name(state_dir: Path, name: str, sha256: str) -> None:
    """Let jobs ask for an environment by a name; a later one of the same name takes its place."""
    parent = state_dir.absolute() / "environments"
    with _alone(parent / ".names.lock"):
        path = parent / "names.json"
        names = json.loads(path.read_text("utf-8")) if path.exists() else {}
        draft = parent / ".names.new"
        draft.write_text(json.dumps(names | {name: sha256}, indent=1), "utf-8")
        draft.replace(path)


def main(argv: Sequence[str]) -> int:
    """``python -m gridlease_agent.environments --environments DIR [--name NAME] LOCK``."""
    parser = argparse.ArgumentParser(description="Prepares a Python environment from a lock file.")
    parser.add_argument("--environments", type=Path, required=True, help="folder named so")
    parser.add_argument("--name", default="", help="what jobs may call it, beside its hash")
    parser.add_argument("lock_file", type=Path)
    words = parser.parse_args(argv)
    try:
        if words.environments.name != "environments":
            raise Invalid(
                f"{words.environments} is not named environments.",
                reason="BAD_FOLDER",
                field="--environments",
                remedy="Choose a folder of that name.",
            )
        state_dir = words.environments.absolute().parent
        made = prepare(words.lock_file, state_dir, progress=lambda line: _say(sys.stdout, line))
        if words.name:
            give_name(state_dir, words.name, made.lock_sha256)
    except Fault as fault:
        _say(sys.stderr, str(fault))
        return 2
    _say(sys.stdout, made.lock_sha256)
    return 0


def _say(stream: TextIO, line: str) -> None:
    stream.write(line + "\n")
    stream.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
