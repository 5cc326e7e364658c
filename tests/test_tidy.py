"""The house rules, as a test: what reviewers would otherwise have to remember."""

from __future__ import annotations

import ast
import filecmp
import functools
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(os.environ.get("GRIDLEASE_TIDY_ROOT", Path(__file__).parent.parent)).resolve()
GENERATED = ("libs/wire/", "protos/third_party/")
FILE_LINES = 500
FUNCTION_LINES = 60
# Longer on purpose: each with its reason.
LONG_FILES: dict[str, str] = {
    "services/node-agent/gridlease_agent/shim.py": "runs alone, as one file, beside each task",
}
BAGS = {"utils", "util", "common", "helpers", "helper", "misc", "shared", "base"}
SERVICES = {
    "services/scheduler/gridlease_scheduler",
    "services/billing/gridlease_billing",
    "services/node-agent/gridlease_agent",
    "services/gateway/gridlease_gateway",
}
# Built from pieces, so that this file does not hold them itself.
HOSTS = [
    "pypi" + ".org",
    "python" + "hosted.org",
    "deb." + "debian.org",
    "registry.npm" + "js.org",
    "archive." + "ubuntu.com",
]
PLACES = ["/work" + "/main", "/work" + "/shared", "/root" + "/.pyenv"]
LEFTOVERS = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X)\b")
SLEEP = re.compile(r"\b(time|asyncio)\.sleep\((?!0\))")
SUPPRESSION = re.compile(r"#\s*(noqa|type:\s*ignore)(?![:\[]\s*[A-Za-z])")
LINK = re.compile(r"\]\((?!https?://|#|mailto:)([^)#\s]+)")


@functools.cache
def tracked() -> tuple[str, ...]:
    """Every file of the project: tracked, or new and not ignored."""
    if (ROOT / ".git").exists():
        command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        names = listed.stdout.splitlines()
    else:
        names = [str(p.relative_to(ROOT)) for p in ROOT.rglob("*") if p.is_file()]
    return tuple(sorted(n for n in names if (ROOT / n).is_file()))


def ours(*suffixes: str) -> Iterator[tuple[str, str]]:
    """(name, text) of our own files with these suffixes."""
    for name in tracked():
        if name.startswith(GENERATED) or not name.endswith(suffixes):
            continue
        yield name, (ROOT / name).read_text(encoding="utf-8")


def python() -> Iterator[tuple[str, str]]:
    yield from ours(".py")


def report(found: list[str], rule: str) -> None:
    assert not found, f"{rule}:\n  " + "\n  ".join(found)


def test_no_file_is_a_bag() -> None:
    report(
        [
            n
            for n in tracked()
            if not n.startswith(GENERATED) and BAGS & set(Path(n).with_suffix("").parts)
        ],
        "a shared thing gets a noun and a room",
    )


def test_files_are_short() -> None:
    long = [
        f"{name}: {text.count(chr(10))} lines"
        for name, text in python()
        if text.count("\n") > FILE_LINES and name not in LONG_FILES
    ]
    report(long, f"a file over {FILE_LINES} lines wants to be two")


def test_functions_are_short() -> None:
    long = []
    for name, text in python():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                doc = ast.get_docstring(node, clean=False) or ""
                size = (node.end_lineno or 0) - node.lineno + 1 - doc.count("\n")
                if size > FUNCTION_LINES:
                    long.append(f"{name}:{node.lineno} {node.name}: {size} lines")
    report(long, f"a function over {FUNCTION_LINES} lines wants to be two")


def test_nothing_is_left_over() -> None:
    found = [
        f"{name}: {match.group()}"
        for name, text in ours(".py", ".md", ".proto", ".sql", ".toml", ".sh")
        for match in LEFTOVERS.finditer(text)
    ]
    report(found, "finish it, or file it")


def test_no_test_sleeps() -> None:
    found = [
        f"{name}:{number}"
        for name, text in python()
        if name.startswith(("tests/", "libs/testkit/"))
        and not name.endswith(("waiting.py", "test_tidy.py"))
        for number, line in enumerate(text.splitlines(), 1)
        if SLEEP.search(line)
    ]
    report(found, "tests wait on conditions (gridlease_testkit.waiting), never for time")


def test_suppressions_name_their_rule() -> None:
    found = [
        f"{name}:{number}"
        for name, text in python()
        if name != "tests/test_tidy.py"
        for number, line in enumerate(text.splitlines(), 1)
        if SUPPRESSION.search(line)
    ]
    report(found, "a suppression names the rule that it silences")


def test_no_registry_and_no_machine() -> None:
    suffixes = (
        ".py",
        ".md",
        ".txt",
        ".in",
        ".toml",
        ".yaml",
        ".yml",
        ".json",
        ".sql",
        ".proto",
        "run",
        "dev",
    )
    found = [
        f"{name}: {word}"
        for name, text in ours(*suffixes)
        for word in HOSTS + PLACES
        if word in text
    ]
    report(found, "no package registry's host and no path of one machine")


def test_services_have_the_same_rooms() -> None:
    want = {"__main__.py", "bootstrap.py", "settings.py", "rpc", "ports.py", "domain", "adapters"}
    found = []
    for service in sorted(SERVICES):
        have = {
            Path(n).relative_to(service).parts[0] for n in tracked() if n.startswith(service + "/")
        }
        have = {"rpc" if name == "rpc.py" else name for name in have}
        found += [f"{service}: no {name}" for name in sorted(want - have)]
    report(found, "knowing one service is knowing all")


def test_an_old_python_reaches_its_one_sentence() -> None:
    """./dev must parse on Pythons that are too old, to say so."""
    ast.parse((ROOT / "dev").read_text(encoding="utf-8"), feature_version=(3, 6))


def test_packages_are_typed() -> None:
    packages = {
        str(Path(n).parent) for n, _ in python() if re.search(r"gridlease_\w+/__init__\.py$", n)
    }
    report([p for p in sorted(packages) if f"{p}/py.typed" not in tracked()], "py.typed is missing")


def test_modules_say_what_they_are() -> None:
    found = [
        name
        for name, text in python()
        if text.strip()
        and not name.startswith("tests/")
        and ast.get_docstring(ast.parse(text)) is None
    ]
    report(found, "a module opens with one sentence")


def test_links_are_alive() -> None:
    found = [
        f"{name}: {target}"
        for name, text in ours(".md")
        for target in LINK.findall(text)
        if not (ROOT / name).parent.joinpath(target).exists()
    ]
    report(found, "a link leads nowhere")


def test_files_end_with_a_newline() -> None:
    suffixes = (".py", ".md", ".toml", ".proto", ".sql", ".yaml", ".txt")
    report(
        [name for name, text in ours(*suffixes) if text and not text.endswith("\n")],
        "a text file ends with a newline",
    )


def test_the_lock_has_hashes_for_all() -> None:
    for lock in ("requirements.txt", "protos/requirements.txt", "runtimes/numpy.txt"):
        text = (ROOT / lock).read_text(encoding="utf-8")
        pins = re.findall(r"^[a-z0-9][\w.-]*==", text, re.MULTILINE)
        blocks = re.split(r"^(?=[a-z0-9][\w.-]*==)", text, flags=re.MULTILINE)[1:]
        assert len(pins) == len(blocks)
        report([b.split()[0] for b in blocks if "--hash=sha256:" not in b], f"{lock}: no hash")


@pytest.mark.skipif("GRIDLEASE_TIDY_ROOT" in os.environ, reason="a copy has no generator")
def test_the_wire_is_fresh(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "dev"), "protos", "--to", str(tmp_path)]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    stale = []
    for path in sorted(tmp_path.rglob("*_pb2*.py*")):
        twin = ROOT / "libs" / "wire" / path.relative_to(tmp_path)
        if not twin.exists() or not filecmp.cmp(path, twin, shallow=False):
            stale.append(str(twin.relative_to(ROOT)))
    report(stale, "generated code is older than its protos: run ./dev protos")
