"""Has a GPU measured by a program of its own, and says what came of it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gridlease_agent.devices import cuda_certify
from gridlease_agent.devices.scrubbed import Measured
from gridlease_agent.probes.facts import DeviceFacts

_CUBLAS = ("libcublas.so.13", "libcublas.so.12", "libcublas.so.11")
_SIZE = 4096
_PATIENCE_S = 120.0


@dataclass(frozen=True, slots=True)
class CudaMeter:
    """``variables``: of the program's environment; tests name a stand-in's memory there."""

    library: str = "libcuda.so.1"
    cublas: tuple[str, ...] = _CUBLAS
    variables: Mapping[str, str] = field(default_factory=dict)
    size: int = _SIZE

    def measure(self, device: DeviceFacts) -> Measured:
        """Blocks for some seconds; nobody else may be on the device."""
        last = Measured(trouble="cuBLAS is not here")
        for cublas in self.cublas:
            last = self._measured(device, cublas)
            if not last.trouble:
                break
        return last

    def _measured(self, device: DeviceFacts, cublas: str) -> Measured:
        program = Path(cuda_certify.__file__)
        packages = str(program.parent.parent.parent)
        argv = [sys.executable, "-I", "-S", str(program), packages, self.library, cublas]
        own = {"PATH": "/usr/bin:/bin", "CUDA_VISIBLE_DEVICES": device.id}
        try:
            done = subprocess.run(
                [*argv, str(self.size)], env=own | dict(self.variables), capture_output=True,
                check=False, timeout=_PATIENCE_S, cwd="/",
            )  # fmt: skip
            answer = json.loads(done.stdout.decode("utf-8").splitlines()[-1])
            if answer.get("trouble"):
                return Measured(trouble=str(answer["trouble"]))
            return Measured(answer["gflops"], answer["memory_mbps"], bool(answer["correct"]))
        except (OSError, ValueError, LookupError, subprocess.TimeoutExpired) as trouble:
            return Measured(trouble=f"the measuring program failed: {type(trouble).__name__}")
