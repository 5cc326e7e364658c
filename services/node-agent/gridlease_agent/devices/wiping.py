"""How the memory of a device is wiped, and how that is verified: one scrubber for each way.

Each answers with a method, or with a trouble; nothing in between. What has no scrubber is never
lent. A method of a device that is not real begins with ``emulated``.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import re
import secrets
import subprocess
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from gridlease_agent.devices import cuda_wipe
from gridlease_agent.devices.nvml import Nvml
from gridlease_agent.devices.place import CUDA, NVML
from gridlease_agent.devices.scrubbed import Scrubbed
from gridlease_agent.probes.facts import DeviceFacts

_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
_MIB = 1 << 20
_KEPT_BYTES = 1 << 30  # of a GPU's memory the driver itself needs so much, or so many percent
_KEPT_PERCENT = 3
_PAGE = 4096
_CUDA_S, _PROGRAM_S = 300.0, 600.0


class Scrubber(Protocol):
    """One way to wipe a device. Blocks; bounded."""

    def lacks(self) -> str:
        """Why it cannot work on this host; "" = it can."""
        ...

    def scrub(self, device: DeviceFacts) -> Scrubbed: ...


@dataclass(frozen=True, slots=True)
class CudaScrubber:
    """NVIDIA: pattern and read-back by the driver, with nobody else on the GPU before and after.

    ``variables``: of the program's environment; tests name a stand-in's memory there.
    """

    library: str = CUDA
    nvml: str = NVML
    variables: Mapping[str, str] = field(default_factory=dict)
    patience_s: float = _CUDA_S

    def lacks(self) -> str:
        nvml = Nvml.open(self.nvml)
        if nvml is None:
            return f"{self.nvml} is not here"
        nvml.close()
        return ""

    def scrub(self, device: DeviceFacts) -> Scrubbed:
        if busy := self._busy(device):
            return Scrubbed(trouble=busy)
        answer = self._filled(device)
        trouble = _judged(device, answer) or self._busy(device)
        return Scrubbed(trouble=trouble) if trouble else Scrubbed("pattern-readback")

    def _busy(self, device: DeviceFacts) -> str:
        nvml = Nvml.open(self.nvml)
        if nvml is None:
            return f"{self.nvml} does not answer"
        try:
            count = nvml.processes(device.id)
        finally:
            nvml.close()
        if count is None:
            return "the driver does not say who uses it"
        return f"{count} process(es) still use it" if count else ""

    def _filled(self, device: DeviceFacts) -> dict[str, Any]:
        program = str(Path(cuda_wipe.__file__))
        argv = [sys.executable, "-I", "-S", program, self.library]
        own = {"PATH": _PATH, "CUDA_VISIBLE_DEVICES": device.id, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
        try:
            done = subprocess.run(
                argv, env=own | dict(self.variables), capture_output=True, check=False,
                timeout=self.patience_s, cwd="/",
            )  # fmt: skip
            answer = json.loads(done.stdout.decode("utf-8").splitlines()[-1])
        except (OSError, ValueError, IndexError, subprocess.TimeoutExpired) as trouble:
            return {"trouble": f"the wiping program failed: {type(trouble).__name__}"}
        return answer if isinstance(answer, dict) else {"trouble": "no answer"}


def _judged(device: DeviceFacts, answer: Mapping[str, Any]) -> str:
    """Why this is no proof; "" = it is."""
    if answer.get("trouble"):
        return str(answer["trouble"])
    said = re.sub(r"^[A-Z]+-|-", "", device.id).lower()
    if re.fullmatch("[0-9a-f]{32}", said) and answer["uuid"] != said:
        return "another device was wiped"
    if answer["wrong"]:
        return f"{answer['wrong']} of {answer['samples']} samples were not what was written"
    kept = answer["total"] - answer["filled"]
    if kept > max(_KEPT_BYTES, answer["total"] * _KEPT_PERCENT // 100):
        return f"{kept // _MIB} MiB of {answer['total'] // _MIB} MiB could not be reached"
    if answer["free"] - answer["filled"] > 64 * _MIB:
        return "memory that was free could not be filled"
    return ""


@dataclass(frozen=True, slots=True)
class FileScrubber:
    """A device whose memory is a file (a stand-in): pattern, all of it read back, zeroes."""

    path: str  # with fields of the device
    root: Path = Path("/")

    def lacks(self) -> str:
        return ""

    def scrub(self, device: DeviceFacts) -> Scrubbed:
        path = self.root / _filled_in(self.path, device).lstrip("/")
        try:
            with path.open("r+b") as file:
                size = os.fstat(file.fileno()).st_size
                if not size:
                    return Scrubbed(trouble="it has no memory")
                with mmap.mmap(file.fileno(), size) as memory:
                    for page in (secrets.token_bytes(_PAGE), bytes(_PAGE)):
                        if not _cycled(memory, page, size):
                            return Scrubbed(trouble="its memory is not what was written")
                    memory.flush()
        except (OSError, ValueError) as trouble:
            return Scrubbed(trouble=str(trouble))
        return Scrubbed("file-pattern-readback")


def _cycled(memory: mmap.mmap, page: bytes, size: int) -> bool:
    """Writes the page all over the memory; whether it reads back."""
    for at in range(0, size, _PAGE):
        memory[at : min(size, at + _PAGE)] = page[: size - at]
    return all(
        memory[at : min(size, at + _PAGE)] == page[: size - at] for at in range(0, size, _PAGE)
    )


@dataclass(frozen=True, slots=True)
class ProgramScrubber:
    """A vendor's or an operator's own program: known by digest, its exit code is its word."""

    path: str
    digests: Collection[str]
    patience_s: float = _PROGRAM_S

    def lacks(self) -> str:
        try:
            facts = Path(self.path).stat()
            digest = hashlib.sha256(Path(self.path).read_bytes()).hexdigest()
        except OSError:
            return f"{self.path} is not here"
        ours = facts.st_uid in (0, os.geteuid()) and not facts.st_mode & 0o022
        if digest not in self.digests or not ours:
            return f"{self.path} is not a program that may run (sha256 {digest})"
        return ""

    def scrub(self, device: DeviceFacts) -> Scrubbed:
        if lacks := self.lacks():
            return Scrubbed(trouble=lacks)
        try:
            done = subprocess.run(
                [self.path, device.id, device.bus, str(device.index)],
                env={"PATH": _PATH},
                capture_output=True,
                check=False,
                timeout=self.patience_s,
                cwd="/",
            )
        except (OSError, subprocess.TimeoutExpired) as trouble:
            return Scrubbed(trouble=f"{self.path}: {type(trouble).__name__}")
        if done.returncode:
            return Scrubbed(trouble=f"{self.path} ended with {done.returncode}")
        return Scrubbed("program")


def _filled_in(path: str, device: DeviceFacts) -> str:
    return path.format(index=device.index, id=device.id, bus=device.bus)


def scrubber_of(
    table: Mapping[str, str], root: Path, digests: Collection[str], cuda: CudaScrubber
) -> Scrubber | None:
    """The way that a family's file names; None = it names none."""
    ways: Mapping[str, Callable[[], Scrubber]] = {
        "cuda": lambda: cuda,
        "file": lambda: FileScrubber(table["path"], root),
        "program": lambda: ProgramScrubber(table["path"], digests),
    }
    return ways[table["by"]]() if table else None
