"""./dev demo, whole: its exit code, and the JSON object on its last line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path


def test_the_demo_ends_with_a_bill_that_adds_up(folder: Path) -> None:
    command = [sys.executable, "-m", "gridlease_launch", "demo", "--json"]
    command += ["--state", str(folder / "demo")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["ok"] is True
    assert told["job"]["state"] == "SUCCEEDED"
    assert told["job"]["accuracy"] >= 0.95
    assert 0 < told["charged_ns"] <= told["ran_ns"] < told["charged_ns"] + 1e9
    assert told["invoice_nano"] > 0
    assert told["journal_sum_nano"] == 0
    assert told["runtime"] in {"crun", "bubblewrap"}
    assert told["ms"]["submit_to_placed"] <= told["ms"]["total"]
    assert told["pending"]["reason"] == "NO_SUCH_CHIP"
    assert told["pending"]["hint"]
    for word in ("joined", "quote", "placed", "  | done:", "receipt", "books", "invoice"):
        assert word in done.stderr, word
    assert list((folder / "demo").glob("*.pdf"))
    assert not (folder / "demo" / "up.json").exists()


def test_a_taken_port_is_one_sentence(folder: Path) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = [sys.executable, "-m", "gridlease_launch", "up", "--port", str(port)]
        command += ["--state", str(folder / "taken")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert f"Port {port}" in done.stderr
    assert "--port" in done.stderr
