"""A virtual machine on a stock kernel whose only control groups are of version 2."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.escape.guest import archive

PATIENCE_S = 280
_KERNEL = "linux-image-cloud-amd64"
_EMULATOR = "qemu-system-x86_64"


def _apt(*words: str, folder: Path | None = None) -> str:
    done = subprocess.run(
        words, cwd=folder, capture_output=True, text=True, timeout=240, check=False
    )
    if done.returncode:
        pytest.skip(f"{words[0]} {words[1]}: {done.stderr.strip()[-200:]}")
    return done.stdout


def emulator() -> str:
    """QEMU, installed where it is missing and can be; else the test is skipped with the reason."""
    if platform.machine() != "x86_64":
        pytest.skip("the virtual machine is an x86-64 one")
    found = shutil.which(_EMULATOR)
    if found is None and (os.geteuid() != 0 or shutil.which("apt-get") is None):
        pytest.skip(f"needs {_EMULATOR}, and root with apt to install it")
    if found is None:
        _apt("apt-get", "install", "-y", "--no-install-recommends", "qemu-system-x86")
        found = shutil.which(_EMULATOR)
    assert found is not None
    return found


def kernel(folder: Path) -> Path:
    """The distribution's kernel for clouds, unpacked and not installed."""
    ready = os.environ.get("GRIDLEASE_TEST_KERNEL")
    if ready:
        return Path(ready)
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        pytest.skip("needs apt and dpkg to fetch a kernel, or GRIDLEASE_TEST_KERNEL")
    said = _apt("apt-cache", "depends", _KERNEL)
    names = [line.split()[-1] for line in said.splitlines() if "linux-image-" in line]
    package = next(name for name in names if name != _KERNEL)
    _apt("apt-get", "download", package, folder=folder)
    for path in folder.glob(f"{package}_*.deb"):
        _apt("dpkg-deb", "-x", str(path), str(folder / "kernel"))
    return next((folder / "kernel/boot").glob("vmlinuz-*"))


def boot(folder: Path) -> dict[str, Any]:
    """Run the machine to its end; what it told, which it must within ``PATIENCE_S``."""
    program, image, disk = emulator(), kernel(folder), folder / "disk"
    archive.write(disk)
    command = [
        program, "-accel", "tcg", "-cpu", "max", "-smp", "2", "-m", "1024", "-nographic",
        "-no-reboot", "-nodefaults", "-serial", "stdio", "-kernel", str(image), "-initrd",
        str(disk), "-append", "console=ttyS0 quiet panic=-1 mitigations=off",
    ]  # fmt: skip
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE_S, check=False
        )
    except subprocess.TimeoutExpired as trouble:
        said = (trouble.stdout or b"")[-2000:].decode("utf-8", "replace")
        pytest.fail(f"the machine did not end within {PATIENCE_S} s; its last words: {said}")
    said = done.stdout.decode("utf-8", "replace")
    told = [line for line in said.splitlines() if line.startswith("RESULT ")]
    assert told, said[-4000:]
    result: dict[str, Any] = json.loads(told[0].removeprefix("RESULT "))
    return result
