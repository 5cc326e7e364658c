"""``python -m tests.mutate billing [NAME ...]``: plants bugs in copies; the tests must see each."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from tests.mutate.money_bugs import BUGS
from tests.mutate.planted import Bug, named

ROOT = Path(__file__).resolve().parents[2]
_LIMIT_S = 300
_AT_ONCE = 2
# Each text that is written is older than the next by a second: no compiled file of one is taken
# for another's.
_WRITTEN = itertools.count(1_000_000_000)


@dataclass(frozen=True, slots=True)
class Tried:
    """``verdict``: caught, MISSED, STALE where the text is no more; ``words``: who saw it."""

    bug: Bug
    verdict: str
    seconds: float
    words: str


class Copy:
    """A copy of the tree, in which one bug at a time is planted."""

    def __init__(self, tree: Path) -> None:
        self._tree = tree
        roots = [p.parent for p in sorted(tree.glob("*/*/gridlease_*")) if p.is_dir()]
        places = [tree, tree / "libs" / "wire", *dict.fromkeys(roots)]
        self._env = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, places))}

    def looked_at(self, tests):
        """pytest's exit code, and the last words of the first test that fails."""
        tests = [named(it, self._tree) for it in tests]
        command = [sys.executable, "-m", "pytest", "-x", "-q", "--no-header", "-m", "not slow",
                   "-p", "no:cacheprovider", "--hypothesis-seed=0", *tests]  # fmt: skip
        child = subprocess.Popen(
            command, cwd=self._tree, env=self._env, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            out, errors = child.communicate(timeout=_LIMIT_S)
        except subprocess.TimeoutExpired:
            child.kill()  # its servers end with it
            child.communicate()
            return 1, f"did not end within {_LIMIT_S} s"
        failed = [line for line in out.splitlines() if line.startswith(("FAILED", "ERROR tests"))]
        return child.returncode, (failed or out.splitlines()[-1:] or [errors[-200:]])[0]

    def try_bug(self, bug: Bug) -> Tried:
        """Plants it, lets its tests look, and takes it out again."""
        path = self._tree / bug.path
        text = path.read_text(encoding="utf-8")
        if text.count(bug.old) != bug.times:
            words = f"{bug.path} has the text {text.count(bug.old)} times"
            return Tried(bug, "STALE", 0.0, words)
        began = time.perf_counter()
        self._write(path, text.replace(bug.old, bug.new))
        code, words = 0, "nobody looks"
        try:
            for test in bug.tests:  # one after another: the first is likely to see it
                code, words = self.looked_at([test])
                if code:
                    break
        finally:
            self._write(path, text)
        verdict = "caught" if code == 1 else "MISSED"
        return Tried(bug, verdict, time.perf_counter() - began, words)

    def _write(self, path, text):
        path.write_text(text, encoding="utf-8")
        moment = next(_WRITTEN)
        os.utime(path, (moment, moment))


def copy_tree(to):
    """What git would commit."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout
    for name in filter(None, listed.decode().split("\0")):
        if (ROOT / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, to / name)


@contextlib.contextmanager
def copies(number):
    """``number`` copies of the tree, lent by a queue; removed afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="gl-mutate-"))
    folder.chmod(0o711)
    lent: queue.SimpleQueue[Copy] = queue.SimpleQueue()
    try:
        copy_tree(folder / "0")
        for n in range(1, number):
            shutil.copytree(folder / "0", folder / str(n))
        for n in range(number):
            lent.put(Copy(folder / str(n)))
        yield lent
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def tried(bugs, show=print, at_once=_AT_ONCE):
    """Plants each bug in a copy of the tree; the names of those that were not caught."""
    missed = []
    with copies(at_once) as lent, ThreadPoolExecutor(at_once) as pool:

        def on_a_copy(work):
            copy = lent.get()
            try:
                return work(copy)
            finally:
                lent.put(copy)

        tests = list(dict.fromkeys(it for bug in bugs for it in bug.tests))
        parts = [tests[n::at_once] for n in range(at_once) if tests[n::at_once]]
        looks = [pool.submit(on_a_copy, lambda it, t=part: it.looked_at(t)) for part in parts]
        for code, words in (look.result() for look in looks):
            if code:
                show(f"{'BROKEN':<7} {'':>6}  without a bug: {words[:100]}")
                return [f"{bug.name}: not tried: {words}" for bug in bugs]
        show(f"{'sound':<7} {'':>6}  without a bug, all tests pass that are to see one")
        planted = [pool.submit(on_a_copy, lambda it, b=bug: it.try_bug(b)) for bug in bugs]
        for n, done in enumerate(as_completed(planted), start=1):
            it = done.result()
            show(
                f"{it.verdict:<7} {it.seconds:5.1f}s  {n:>3}/{len(bugs)}  {it.bug.name:<46}"
                f" {it.words.removeprefix('FAILED tests/').removeprefix('ERROR tests/')[:80]}"
            )
            if it.verdict != "caught":
                missed.append(f"{it.bug.name}: {it.verdict}: {it.words}")
    return missed


def main(arguments):
    parser = argparse.ArgumentParser(prog="./dev mutate", description=__doc__)
    parser.add_argument("what", choices=["billing"])
    parser.add_argument("names", nargs="*", help="only bugs whose names contain one of these")
    parser.add_argument("--at-once", type=int, default=_AT_ONCE, help="copies of the tree")
    options = parser.parse_args(arguments)
    bugs = [bug for bug in BUGS if not options.names or any(it in bug.name for it in options.names)]
    began = time.perf_counter()
    lock = threading.Lock()

    def show(line):
        with lock:
            print(line, flush=True)

    missed = tried(bugs, show, max(1, options.at_once))
    seconds = round(time.perf_counter() - began)
    caught = len(bugs) - len(missed)
    print("\n".join(f"not caught: {it}" for it in missed[:20]) or "every one is caught")
    print(f"{caught} of {len(bugs)} planted bugs are caught, in {seconds} s")
    told = {"planted": len(bugs), "caught": caught, "missed": missed, "seconds": seconds}
    print(json.dumps({"mutate": options.what, "results": told}))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
