"""``./dev bench agent``: what the agent itself takes, with 8 devices (emulated) and 20 tasks."""

import argparse
import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from gridlease_mesh.embedded import EmbeddedNats
from gridlease_testkit.waiting import elapsed, eventually

from tests.bench.children import cpu_s
from tests.integration.agent import centre as centres
from tests.integration.agent.agents import Agent

_MOCK = Path(__file__).parents[1] / "unit" / "agent_devices" / "mock_nvml.c"
_MOCK_CUDA = _MOCK.with_name("mock_cuda.c")
_MEMORY_BYTES = 8 << 20
_TARGETS = {"pss_mb": 45.0, "pss_per_task_mb": 1.0, "cpu_percent_of_core": 0.2}
_SETTLE_S = 5.0


def pss_bytes(pid):
    """A process's share of memory: its own pages, and its part of those that it shares."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise LookupError(pid)


def keepers(agent):
    """Of each task: its keeper, and the processes of it that are no part of the sandbox."""
    found = []
    for folder in (agent.state / "leases").iterdir():
        pid = json.loads((folder / "shim.json").read_text())["pid"]
        init = json.loads((folder / "started.json").read_text())["init_pid"]
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        found.append([pid, *(int(x) for x in children if int(x) != init)])
    return found


def _mock(folder, devices):
    """A root of stand-ins: NVIDIA's driver, its libraries, and a file for each GPU's memory."""
    library = folder / "usr/lib/libnvidia-ml.so.1"
    library.parent.mkdir(parents=True)
    (folder / "proc/driver/nvidia").mkdir(parents=True)
    (folder / "proc/driver/nvidia/version").write_text("NVRM version: 550.54.15\n")
    said = library.parent / "mock"  # read by the stand-ins: no environment reaches a scrub
    said.mkdir()
    (said / "MOCK_NVML_GPUS").write_text(str(devices))
    (said / "MOCK_CUDA_MEMORY").write_text(f"{folder}/memory%")
    for index in range(devices):
        (folder / f"memory{index}").write_bytes(bytes(_MEMORY_BYTES))
    for made, source in ((library, _MOCK), (library.with_name("libcuda.so.1"), _MOCK_CUDA)):
        command = ["cc", "-shared", "-fPIC", "-o", str(made), str(source)]
        subprocess.run(command, check=True, timeout=60)


def _parts(agent):
    record = agent.state / "agent.json"
    if record.exists():
        return json.loads(record.read_text())
    return {"agent": agent.process.pid}


async def _measure(root, tasks, seconds):
    with EmbeddedNats(root / "nats") as broker:
        async with centres.running(broker) as centre:
            agent = Agent(root / "node", slow_tick_ms="10000", renew_retry_ms="5000")
            centres.enrol(broker, agent.state)
            centre.grant_ms = 120_000
            await agent.start()
            try:
                names = [f"ls-{number:02d}" for number in range(tasks)]
                for name in names:
                    centre.want(name, ["exec sleep 100000"])
                for name in names:
                    await eventually(lambda name=name: centre.running(name), 120)
                found = await _figures(agent, seconds)
                return found | {"devices": len(centre.inventories[-1].devices)}
            finally:
                agent.stop()
                agent.end_tasks()


async def _figures(agent, seconds):
    await elapsed(_SETTLE_S)
    parts = _parts(agent)
    before = {name: cpu_s(pid) for name, pid in parts.items()}
    began = time.monotonic()
    await elapsed(seconds)
    spent_s = time.monotonic() - began
    cpu = {name: (cpu_s(pid) - before[name]) / spent_s * 100 for name, pid in parts.items()}
    pss = {name: pss_bytes(pid) / 1e6 for name, pid in parts.items()}
    each = [sum(pss_bytes(pid) for pid in group) / 1e6 for group in keepers(agent)]
    return {
        "pss_mb": round(sum(pss.values()), 1),
        "pss_per_task_mb": round(max(each), 2),
        "cpu_percent_of_core": round(sum(cpu.values()), 3),
        "parts": {name: [round(pss[name], 1), round(cpu[name], 3)] for name in parts},
    }


def main(arguments):
    parser = argparse.ArgumentParser(prog="./dev bench agent", description=__doc__)
    parser.add_argument("--tasks", type=int, default=20)
    parser.add_argument("--devices", type=int, default=8, help="emulated: a mock library")
    parser.add_argument("--seconds", type=float, default=60.0)
    words = parser.parse_args(arguments)
    root = Path(tempfile.mkdtemp(prefix="bench-agent-"))
    try:
        if shutil.which("cc"):
            _mock(root / "devices", words.devices)
            os.environ["GRIDLEASE_DEVICE_ROOT"] = str(root / "devices")
        else:
            print("there is no C compiler: no devices", file=sys.stderr)
        found = asyncio.run(_measure(root, words.tasks, words.seconds))
    finally:
        shutil.rmtree(root, ignore_errors=True)
    for name, (pss_mb, percent) in found.pop("parts").items():
        print(f"  {name:<10} {pss_mb:6.1f} MB PSS  {percent:6.3f} % of a core")
    for name, most in _TARGETS.items():
        print(f"  {name:<22} {found[name]:8.3f}  (at most {most})")
    ratio = {name: round(found[name] / most, 2) for name, most in _TARGETS.items()}
    print(json.dumps({"bench": "agent", "results": found, "baseline": _TARGETS, "ratio": ratio}))
    return 0
