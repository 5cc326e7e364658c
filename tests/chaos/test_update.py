"""Upgrade, forced way back, and releases that fail, with real tasks running through all of it."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import gridlease_agent
import pytest
from gridlease_agent.update.manifest import signed_text
from gridlease_testkit.waiting import eventually
from nacl.signing import SigningKey

from tests.chaos.conftest import Brew
from tests.chaos.storm import Storm

pytestmark = [pytest.mark.root, pytest.mark.slow]
KEY = SigningKey(b"k" * 32)
Patch = tuple[str, str, str]  # a file of the agent, what stands there, and what shall
DEAF: Patch = ("sync.py", "        while True:\n", "        while await asyncio.Event().wait():\n")
_MAIN = "def main(argv: Sequence[str]) -> int:\n"
STILLBORN: Patch = ("__main__.py", _MAIN, f"raise SystemExit(3)\n{_MAIN}")


class Updating:
    """One host with two slots, and a publisher."""

    def __init__(self, storm: Storm, folder: Path) -> None:
        self.storm, self.folder, self.home = storm, folder, folder / "home"
        keys = base64.b64encode(bytes(KEY.verify_key)).decode()
        self.environment = {
            **os.environ,
            "GRIDLEASE_RELEASE_KEYS": keys,
            "GRIDLEASE_RENEW_RETRY_MS": "300",
            "GRIDLEASE_GRACE_MS": "500",
            "GRIDLEASE_SLOW_TICK_MS": "500",
            "GRIDLEASE_BURN_IN_MS": "0",
        }
        self.process: subprocess.Popen[bytes] | None = None

    def release(self, number: int, broken: Patch | None = None) -> tuple[Path, Path]:
        """A manifest and its archive: this very source, as version 9.``number``."""
        lib = self.folder / f"lib-{number}"
        source = Path(gridlease_agent.__file__).parent
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(source, lib / "gridlease_agent", ignore=ignored)
        if broken is not None:
            path = lib / "gridlease_agent" / broken[0]
            text = path.read_text("utf-8")
            assert broken[1] in text, broken
            path.write_text(text.replace(broken[1], broken[2], 1), "utf-8")
        facts = lib / f"gridlease-9.{number}.dist-info" / "METADATA"
        facts.parent.mkdir()
        facts.write_text(f"Metadata-Version: 2.1\nName: gridlease\nVersion: 9.{number}\n", "utf-8")
        archive = self.folder / f"{number}.tar"
        with tarfile.open(archive, "w") as file:
            file.add(lib, "lib")
        shutil.rmtree(lib)
        raw = archive.read_bytes()
        said = {
            "product": "gridlease-agent",
            "version": f"9.{number}",
            "number": number,
            "expires_s": int(time.time()) + 3600,
            "archive": {"sha256": hashlib.sha256(raw).hexdigest(), "size_bytes": len(raw)},
        }
        manifest = self.folder / f"{number}.json"
        manifest.write_text(json.dumps(said), "utf-8")
        signature = KEY.sign(signed_text(manifest.read_bytes())).signature
        (self.folder / f"{number}.json.sig").write_bytes(signature)
        return manifest, archive

    def tool(self, *words: str) -> tuple[int, str]:
        """``gridlease_agent.update`` with these words."""
        done = subprocess.run(
            [sys.executable, "-m", "gridlease_agent.update", "--home", str(self.home), *words],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=30.0,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    def stage(self, number: int, broken: Patch | None = None) -> tuple[int, str]:
        return self.tool("stage", *(str(path) for path in self.release(number, broken)))

    def run(self, trial_s: float) -> None:
        state = str(self.storm.agent.state)
        with self.storm.agent.log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "gridlease_agent.update", "--home", str(self.home)),
                    *("run", "--state", state, "--trial", str(trial_s), "--", "--state", state),
                ],
                env=self.environment,
                stdout=log,
                stderr=log,
            )

    def said(self) -> str:
        record = json.loads((self.home / "update.json").read_text("utf-8"))
        return "" if record["wanted"] else str(record["said"])

    def version(self) -> str:
        """As the agent that runs tells it."""
        inventories = self.storm.centre.inventories
        return str(inventories[-1].agent_version) if inventories else ""

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(30.0)


@pytest.fixture
def updating(brew: Brew, state_folder: Path, tmp_path: Path) -> Iterator[Updating]:
    storm = brew(1, 12, (4.0, 20.0))
    one = Updating(storm, tmp_path)
    yield one
    one.stop()


async def _said(host: Updating, words: str) -> None:
    try:
        await eventually(lambda: words in host.said(), 60.0, words)
    except AssertionError as trouble:
        text = host.storm.agent.log.read_text("utf-8")[-3000:]
        raise AssertionError(f"{host.said()!r}\n{text}") from trouble
    host.storm.watch()


async def test_a_to_b_and_back_restarts_no_task(updating: Updating) -> None:
    host, storm = updating, updating.storm
    assert host.stage(1)[0] == 0
    host.run(trial_s=20.0)
    await eventually(lambda: host.version() == "9.1", 30.0, "the first release runs")
    storm.fill()
    await eventually(lambda: len(storm.running()) >= storm.at_once, 60.0, "all of them run")
    assert host.stage(2)[0] == 0
    await _said(host, "9.2 runs")
    await eventually(lambda: host.version() == "9.2", 10.0, "the second release is heard")
    assert host.tool("back")[0] == 0
    await _said(host, "9.1 runs")
    await eventually(lambda: host.version() == "9.1", 10.0, "the first release is heard")
    code, words = host.stage(2)
    assert (code, "RELEASE_OLDER" in words or "is not newer" in words) == (2, True), words
    await storm.calm(60.0)
    storm.check()
    assert not storm.lost


@pytest.mark.parametrize(("broken", "why"), [(STILLBORN, "it ended with"), (DEAF, "scheduler")])
async def test_a_release_that_fails_is_taken_back(
    updating: Updating, broken: Patch, why: str
) -> None:
    host, storm = updating, updating.storm
    storm.at_once = 5
    assert host.stage(1)[0] == 0
    host.run(trial_s=5.0)
    await eventually(lambda: host.version() == "9.1", 30.0, "the first release runs")
    storm.fill()
    await eventually(lambda: len(storm.running()) >= 5, 60.0, "all of them run")
    assert host.stage(2, broken)[0] == 0
    await _said(host, "9.2 was taken back")
    assert why in host.said()
    storm.centre.inventories.clear()
    await eventually(lambda: host.version() == "9.1", 20.0, "the first release is heard again")
    await storm.calm(60.0)
    storm.check()
    assert not storm.lost
