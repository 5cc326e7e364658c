"""Prepared Python environments: made from a hashed lock, run inside sandboxes."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import sys
import zipfile
from pathlib import Path

import pytest
from gridlease_agent import environments
from gridlease_agent.runtimes.spec import SandboxSpec
from gridlease_agent.sandbox import Deadline
from gridlease_kernel.faults import Invalid, Precondition

DEBIAN = "/usr/bin/python3"


def _wheel(folder: Path) -> Path:
    """A pure wheel with a module and a console script, made on the spot: no network is needed."""
    path = folder / "gl_toy-1.0-py3-none-any.whl"
    info = "gl_toy-1.0.dist-info"
    files = {
        "gl_toy.py": "def main():\n    print('toy speaks')\n",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: gl-toy\nVersion: 1.0\n",
        f"{info}/WHEEL": (
            "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        ),
        f"{info}/entry_points.txt": "[console_scripts]\ngl-toy = gl_toy:main\n",
    }
    rows = []
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
            digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=")
            rows.append(f"{name},sha256={digest.decode()},{len(text)}")
        archive.writestr(f"{info}/RECORD", "\n".join([*rows, f"{info}/RECORD,,"]) + "\n")
    return path


def _lock(folder: Path) -> Path:
    wheel = _wheel(folder)
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    lock = folder / "lock.txt"
    lock.write_text(f"gl-toy @ file://{wheel} --hash=sha256:{digest}\n")
    return lock


def _interpreters() -> list[str]:
    found = [sys.executable]
    if Path(DEBIAN).exists():
        found.append(DEBIAN)
    return found


def _run(bench, environment, *argv: str, **parts):
    lease_id = f"ls-env-{os.getpid()}-{len(bench.sandboxes.list())}"
    spec = SandboxSpec(
        lease_id,
        argv,
        environment=str(environment.folder),
        environment_env=environment.env,
        **parts,
    )
    bench.sandboxes.start(lease_id, spec, Deadline.after(60_000, 0))
    return bench.exited(lease_id, 60).record, bench.log(lease_id)


@pytest.mark.parametrize("python", _interpreters())
def test_an_environment_runs_inside(bench, tmp_path, python):
    said: list[str] = []
    lock = _lock(tmp_path)
    environment = environments.prepare(lock, tmp_path, python, said.append)
    assert said
    assert environments.available(tmp_path) == [environment]
    assert environments.find(tmp_path, environments.lock_sha256(lock)[:16]) == environment
    assert environments.prepare(lock, tmp_path, python) == environment
    source = (
        "import sys, ssl, sqlite3, ctypes, gl_toy; gl_toy.main();"
        "print(sys.executable, sys.prefix, [p for p in sys.path if 'gridlease' not in p])"
    )
    record, log = _run(bench, environment, "python3", "-W", "error", "-c", source)
    assert record.exit_code == 0, log
    assert log.startswith("toy speaks\n/opt/gridlease/env/bin/python3 /opt/gridlease/env ['']")
    record, log = _run(bench, environment, "gl-toy")
    assert (record.exit_code, log) == (0, "toy speaks\n")


def test_numpy_works_under_the_strict_profile(bench, tmp_path):
    text = Path("requirements.txt").read_text()
    block = re.search(r"^numpy==[^\n]*\\\n(?:    --hash=[^\n]*\n?)+", text, re.MULTILINE)
    if block is None or sys.version_info >= (3, 12):
        blocks = re.findall(r"^numpy==[^\n]*\\\n(?:    --hash=[^\n]*\n?)+", text, re.MULTILINE)
        block_text = blocks[-1]
    else:
        block_text = block[0]
    lock = tmp_path / "lock.txt"
    lock.write_text(block_text)
    try:
        environment = environments.prepare(lock, tmp_path)
    except Precondition as trouble:
        pytest.skip(f"numpy's wheel is out of reach: {trouble}")
    source = "import numpy as n; a = n.random.rand(300, 300); print(n.linalg.svd(a @ a)[1].shape)"
    record, log = _run(bench, environment, "python", "-c", source, memory_bytes=1 << 30)
    assert (record.exit_code, log) == (0, "(300,)\n")


def test_a_wrong_hash_is_refused_and_nothing_is_left(tmp_path):
    lock = _lock(tmp_path)
    lock.write_text(re.sub("sha256:.{8}", "sha256:00000000", lock.read_text()))
    with pytest.raises(Precondition) as caught:
        environments.prepare(lock, tmp_path)
    assert caught.value.reason == "ENVIRONMENT_FAILED"
    assert environments.available(tmp_path) == []


def test_a_lock_that_is_not_there(tmp_path):
    with pytest.raises(Invalid) as caught:
        environments.prepare(tmp_path / "none.txt", tmp_path)
    assert caught.value.reason == "LOCK_UNREADABLE"
