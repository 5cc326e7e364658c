"""NVIDIA GPUs: from ``nvidia-smi`` where it answers, else from the driver's own folder."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from gridlease_agent.probes.facts import DeviceFacts
from gridlease_agent.probes.reading import text

_FIELDS = "index,uuid,name,memory.total,driver_version,pci.bus_id"
_PATIENCE_S = 20.0
Smi = Callable[[], str]


def ask_smi() -> str:
    """The table that ``nvidia-smi`` prints, "" where it is absent, fails or hangs."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ""
    command = [program, f"--query-gpu={_FIELDS}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_PATIENCE_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def probe(root: Path = Path("/"), smi: Smi = ask_smi) -> tuple[DeviceFacts, ...]:
    """Every GPU that the driver shows under ``root``; none where no driver is loaded."""
    driver = root / "proc/driver/nvidia"
    if not driver.is_dir():
        return ()
    table = smi()
    return _from_smi(table) if table.strip() else _from_driver(root, driver)


def _nodes(index: int) -> tuple[str, ...]:
    shared = ("/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools")
    return (f"/dev/nvidia{index}", *shared)


def _from_smi(table: str) -> tuple[DeviceFacts, ...]:
    found: list[DeviceFacts] = []
    for line in table.strip().splitlines():
        index, uuid, name, mib, driver, bus = (cell.strip() for cell in line.split(","))
        found.append(
            DeviceFacts(
                id=uuid,
                index=int(index),
                family="gpu",
                vendor="nvidia",
                chip=name,
                memory_bytes=int(mib) << 20 if mib.isdigit() else 0,
                driver=driver,
                bus=bus,
                nodes=_nodes(int(index)),
            )
        )
    return tuple(found)


def _from_driver(root: Path, driver: Path) -> tuple[DeviceFacts, ...]:
    """Without ``nvidia-smi`` the memory's size stays unknown (0)."""
    version = text(root, "sys/module/nvidia/version")
    found: list[DeviceFacts] = []
    folders = sorted((driver / "gpus").iterdir()) if (driver / "gpus").is_dir() else []
    for order, folder in enumerate(folders):
        lines = text(folder, "information").splitlines()
        rows = {key.strip(): value.strip() for key, _c, value in (x.partition(":") for x in lines)}
        index = int(rows.get("Device Minor", order))
        found.append(
            DeviceFacts(
                id=rows.get("GPU UUID", folder.name),
                index=index,
                family="gpu",
                vendor="nvidia",
                chip=rows.get("Model", "unknown"),
                memory_bytes=0,
                driver=version,
                bus=folder.name,
                nodes=_nodes(index),
            )
        )
    return tuple(found)
