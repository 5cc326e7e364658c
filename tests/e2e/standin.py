"""A host of stand-in GPUs (emulated): a root whose devices have memory behind real device nodes.

NVIDIA's two libraries are the tests' own; a GPU's memory is a file behind a loop device, so that
who may open the node, and what is found in it, is the kernel's answer.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.agent_devices import hosts

MEMORY_BYTES = 16 << 20
_SOURCES = Path(hosts.__file__).parent


class StandIn:
    """``root``: for GRIDLEASE_DEVICE_ROOT."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def set(self, name: str, value: str) -> None:
        """A setting of the mock libraries, from now on."""
        (self.root / "usr/lib/mock" / name).write_text(value)

    def unset(self, name: str) -> None:
        """As it was."""
        (self.root / "usr/lib/mock" / name).unlink()

    def memory(self, index: int) -> bytes:
        """All of one GPU's."""
        return (self.root / f"memory{index}").read_bytes()


@contextlib.contextmanager
def gpus(count: int = 1) -> Iterator[StandIn]:
    """A root with so many; skips the test where one cannot be made."""
    if os.geteuid() != 0:
        pytest.skip("makes device nodes, so it needs root")
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or shutil.which("losetup") is None:
        pytest.skip("no C compiler or no losetup: the stand-ins cannot be built")
    root = Path(tempfile.mkdtemp(prefix="gridlease-standin-", dir="/var/tmp"))
    loops: list[str] = []
    try:
        root.chmod(0o755)
        for name in ("proc/driver/nvidia", "usr/lib/mock", "dev"):
            (root / name).mkdir(parents=True)
        (root / "proc/driver/nvidia/version").write_text("NVRM version: 550.54.15")
        for name, source in (("libnvidia-ml.so.1", "mock_nvml.c"), ("libcuda.so.1", "mock_cuda.c")):
            argv = [compiler, "-shared", "-fPIC", "-o", root / "usr/lib" / name, _SOURCES / source]
            subprocess.run(argv, check=True, timeout=60)
        made = StandIn(root)
        made.set("MOCK_NVML_GPUS", str(count))
        made.set("MOCK_CUDA_MEMORY", f"{root}/dev/nvidia%")
        _node(root / "dev/nvidiactl", stat.S_IFCHR, os.makedev(10, 229))
        for index in range(count):
            loops.append(_loop(root, index))
            _node(root / f"dev/nvidia{index}", stat.S_IFBLK, Path(loops[-1]).stat().st_rdev)
        yield made
    finally:
        for loop in loops:
            subprocess.run(["losetup", "-d", loop], check=False, timeout=30)
        shutil.rmtree(root, ignore_errors=True)


def _loop(root: Path, index: int) -> str:
    path = root / f"memory{index}"
    path.write_bytes(bytes(MEMORY_BYTES))
    argv = ["losetup", "-f", "--show", str(path)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=30)
    if done.returncode:
        pytest.skip(f"no loop device to stand for a GPU's memory: {done.stderr.strip()}")
    return done.stdout.strip()


def _node(path: Path, kind: int, number: int) -> None:
    os.mknod(path, kind | 0o666, number)
    path.chmod(0o666)
