"""``python -m tests.mutate billing [NAME ...]``: plants bugs in a copy; the tests must see each."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.mutate.money_bugs import BUGS

ROOT = Path(__file__).resolve().parents[2]
_LIMIT_S = 300


def copy_tree(to):
    """What git would commit."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout
    for name in filter(None, listed.decode().split("\0")):
        if (ROOT / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, to / name)


def looked_at(tree, tests):
    """Whether the tests pass in ``tree``, and the last words of the first that does not."""
    roots = [p.parent for p in sorted(tree.glob("*/*/gridlease_*")) if p.is_dir()]
    places = [tree, tree / "libs" / "wire", *dict.fromkeys(roots)]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, places))}
    env["PYTHONDONTWRITEBYTECODE"] = "1"
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--no-header", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, "-m", "not slow", *(it for it in tests if it not in ("-m", "not slow"))],
        cwd=tree, env=env, capture_output=True, text=True, timeout=_LIMIT_S, check=False,
    )  # fmt: skip
    failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return done.returncode, (failed or done.stdout.splitlines()[-1:] or [done.stderr[-200:]])[0]


def try_bug(tree, bug):
    """(verdict, seconds, who saw it): caught, MISSED, or STALE where the text is no more."""
    path = tree / bug.path
    text = path.read_text(encoding="utf-8")
    if text.count(bug.old) != bug.times:
        return "STALE", 0.0, f"{bug.path} has the text {text.count(bug.old)} times"
    began = time.perf_counter()
    path.write_text(text.replace(bug.old, bug.new), encoding="utf-8")
    try:
        code, words = looked_at(tree, bug.tests)
    except subprocess.TimeoutExpired:
        code, words = 1, f"did not end within {_LIMIT_S} s"
    finally:
        path.write_text(text, encoding="utf-8")
    return "caught" if code == 1 else "MISSED", time.perf_counter() - began, words


def tried(bugs, show=print):
    """Plants each bug in a copy of the tree; the names of those that were not caught."""
    folder = Path(tempfile.mkdtemp(prefix="gl-mutate-"))
    folder.chmod(0o711)
    tree = folder / "tree"
    missed = []
    try:
        copy_tree(tree)
        for tests in dict.fromkeys(bug.tests for bug in bugs):
            code, words = looked_at(tree, tests)
            if code:
                show(f"{'BROKEN':<7} {'':>6}  without a bug: {words[:100]}")
                return [f"without a bug: {words}"]
        for bug in bugs:
            verdict, seconds, words = try_bug(tree, bug)
            show(f"{verdict:<7} {seconds:5.1f}s  {bug.name:<44} {words[:90]}")
            if verdict != "caught":
                missed.append(f"{bug.name}: {verdict}: {words}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return missed


def main(arguments):
    parser = argparse.ArgumentParser(prog="./dev mutate", description=__doc__)
    parser.add_argument("what", choices=["billing"])
    parser.add_argument("names", nargs="*", help="only bugs whose names contain one of these")
    options = parser.parse_args(arguments)
    bugs = [bug for bug in BUGS if not options.names or any(it in bug.name for it in options.names)]
    missed = tried(bugs, lambda line: print(line, flush=True))
    print(f"{len(bugs) - len(missed)} of {len(bugs)} planted bugs are caught")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
