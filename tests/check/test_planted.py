"""Each gate of ./dev check catches a break planted for it, in a copy of the tree."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOLS = Path(sys.executable).parent
MYPY = [str(TOOLS / "mypy"), "-p", "gridlease_kernel"]
TIDY = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_tidy.py"]
IMPORTS = [str(TOOLS / "lint-imports"), "--no-logo", "--no-cache"]
BUF = str(TOOLS / "buf")
BREAKING = f"{BUF} build -o now.binpb && {BUF} breaking now.binpb --against protos/baseline.binpb"


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what git would commit."""
    copy = tmp_path_factory.mktemp("tree") / "gridlease"
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout
    for name in filter(None, listed.decode().split("\0")):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name)
    return copy


def gate(tree: Path, command: list[str] | str) -> subprocess.CompletedProcess[str]:
    roots = [p.parent for p in tree.glob("*/*/gridlease_*") if p.is_dir()]
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(str(p) for p in [tree / "libs" / "wire", *roots]),
        "GRIDLEASE_TIDY_ROOT": str(tree),
    }
    words = ["sh", "-c", command] if isinstance(command, str) else command
    return subprocess.run(
        words, cwd=tree, env=env, capture_output=True, text=True, timeout=120, check=False
    )


PLANTED = {
    "a service imports another": (
        "services/scheduler/gridlease_scheduler/domain/planted.py",
        '"""Planted."""\n\nimport gridlease_billing.domain.grant as grant\n\nprint(grant)\n',
        IMPORTS,
        "services know nothing of one another",
    ),
    "the domain reads a clock": (
        "services/billing/gridlease_billing/domain/planted.py",
        '"""Planted."""\n\nimport time\n\nNOW = time.time()\n',
        IMPORTS,
        "domain is pure",
    ),
    "the agent grows heavy": (
        "services/node-agent/gridlease_agent/planted.py",
        '"""Planted."""\n\nimport asyncpg\n\nPOOL = asyncpg\n',
        IMPORTS,
        "the agent stays light",
    ),
    "a wrong type": (
        "libs/kernel/gridlease_kernel/planted.py",
        '"""Planted."""\n\nfrom .money import amount_nano\n\nCOST: str = amount_nano(1, 1)\n',
        MYPY,
        "Incompatible types",
    ),
    "a missing annotation": (
        "libs/kernel/gridlease_kernel/planted.py",
        '"""Planted."""\n\n\ndef planted(x):\n    return x\n',
        [str(TOOLS / "ruff"), "check", "libs/kernel"],
        "ANN001",
    ),
    "the wall clock outside its port": (
        "libs/kernel/gridlease_kernel/planted.py",
        '"""Planted."""\n\nimport datetime\n\nNOW = datetime.datetime.now(tz=datetime.UTC)\n',
        [str(TOOLS / "ruff"), "check", "libs/kernel"],
        "TID251",
    ),
    "a proto without comments": (
        "protos/gridlease/type/v1/planted.proto",
        'syntax = "proto3";\n\npackage gridlease.type.v1;\n\nmessage planted {\n  int32 X=1;\n}\n',
        [str(TOOLS / "buf"), "lint"],
        "planted",
    ),
    "a bag of things": (
        "libs/kernel/gridlease_kernel/utils.py",
        '"""Planted."""\n',
        TIDY,
        "test_no_file_is_a_bag",
    ),
    "a leftover": (
        "libs/kernel/gridlease_kernel/planted.py",
        '"""Planted."""\n\n# TO' + "DO: later\n",
        TIDY,
        "test_nothing_is_left_over",
    ),
    "a sleep in a test": (
        "tests/unit/test_planted.py",
        '"""Planted."""\n\nimport time\n\n\ndef test_it():\n    time.' + "sleep(1)\n",
        TIDY,
        "test_no_test_sleeps",
    ),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_break_is_caught(tree: Path, name: str) -> None:
    path, text, command, verdict = PLANTED[name]
    planted = tree / path
    planted.parent.mkdir(parents=True, exist_ok=True)
    planted.write_text(text, encoding="utf-8")
    try:
        done = gate(tree, command)
    finally:
        planted.unlink()
    words = done.stdout + done.stderr
    assert done.returncode != 0, words
    assert verdict in words, words


def test_a_changed_field_type_is_caught(tree: Path) -> None:
    path = tree / "protos/gridlease/type/v1/resources.proto"
    before = path.read_text(encoding="utf-8")
    path.write_text(before.replace("int64 cpu_milli = 1;", "string cpu_milli = 1;"), "utf-8")
    try:
        done = gate(tree, BREAKING)
    finally:
        path.write_text(before, encoding="utf-8")
    assert done.returncode != 0, done.stdout + done.stderr
    assert "cpu_milli" in done.stdout


def test_the_copy_itself_passes_the_quick_gates(tree: Path) -> None:
    for command in ([str(TOOLS / "buf"), "lint"], BREAKING):
        done = gate(tree, command)
        assert done.returncode == 0, done.stdout + done.stderr
