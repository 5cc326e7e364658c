"""The systemd units say what the agent relies on."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[3] / "deploy" / "systemd"
UNITS = ("gridlease-agent.service", "gridlease-executor.service")


def unit(name: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    section = ""
    for line in (FOLDER / name).read_text("utf-8").splitlines():
        if re.fullmatch(r"\[\w+\]", line):
            section = line[1:-1]
        elif line and not line.startswith("#"):
            key, equals, value = line.partition("=")
            assert equals, line
            assert re.fullmatch(r"[A-Za-z]+", key), line
            found.setdefault(f"{section}.{key}", []).append(value)
    return found


@pytest.mark.parametrize("name", UNITS)
def test_a_restart_ends_no_task(name: str) -> None:
    said = unit(name)
    assert said["Service.KillMode"] == ["process"]
    assert said["Service.Restart"] == ["always"]
    assert said["Install.WantedBy"] == ["multi-user.target"]


def test_the_executor_may_make_cgroups() -> None:
    said = unit("gridlease-executor.service")
    assert said["Service.Delegate"] == ["yes"]
    assert "Service.User" not in said
    assert "PrivateTmp" not in str(said)
    assert "ProtectControlGroups" not in str(said)
    assert "gridlease_agent.executor" in said["Service.ExecStart"][0]


def test_the_core_has_nothing_to_lose() -> None:
    said = unit("gridlease-agent.service")
    assert said["Service.User"] == ["gridlease"]
    assert said["Service.CapabilityBoundingSet"] == [""]
    assert said["Service.NoNewPrivileges"] == ["yes"]
    assert said["Service.ProtectSystem"] == ["strict"]
    assert said["Service.ReadWritePaths"] == ["/var/lib/gridlease"]
    assert "GRIDLEASE_EXECUTOR=/var/lib/gridlease" in said["Service.Environment"][0]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not here")
@pytest.mark.parametrize("name", UNITS)
def test_systemd_takes_it(name: str, tmp_path: Path) -> None:
    text = re.sub(r"ExecStart=\S+", "ExecStart=/bin/true", (FOLDER / name).read_text("utf-8"))
    (tmp_path / name).write_text(text.replace("User=gridlease", "User=nobody"))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(tmp_path / name)],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    lines = [line for line in done.stderr.splitlines() if name in line]
    assert [line for line in lines if "Unknown" in line or "Failed to parse" in line] == []
