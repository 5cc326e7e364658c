"""A real NVIDIA GPU, where one is at hand: found, handed over, wiped, measured, watched."""

from __future__ import annotations

from pathlib import Path

import pytest
from gridlease_agent.devices import cdi
from gridlease_agent.devices.discover import discover
from gridlease_agent.devices.family import load
from gridlease_agent.devices.keeper import DeviceKeeper
from gridlease_agent.devices.nvml import Nvml
from gridlease_agent.devices.wiping import CudaScrubber
from gridlease_agent.probes.facts import DeviceFacts
from gridlease_agent.runtimes.choose import Runtime
from gridlease_agent.runtimes.devices import DeviceTable
from gridlease_agent.sampling.devices import by_nvml
from gridlease_agent.sandbox import Sandboxes

from tests.integration.sandbox.conftest import Bench

pytestmark = [pytest.mark.gpu, pytest.mark.slow]


@pytest.fixture(scope="module")
def table() -> DeviceTable:
    nvml = Nvml.open()
    if nvml is None:
        pytest.skip("no NVIDIA GPU: libnvidia-ml.so.1 is absent or finds no driver")
    nvml.close()
    families = load()
    found = tuple(x for x in discover(families=families) if x.kind == "nvidia.com/gpu")
    return DeviceTable(families, found)


@pytest.fixture
def gpu(table: DeviceTable) -> DeviceFacts:
    return table.devices[0]


def test_it_is_found_and_has_a_document(table: DeviceTable, gpu: DeviceFacts) -> None:
    assert gpu.id.startswith("GPU-")
    assert gpu.memory_bytes > 1 << 30
    assert gpu.driver
    (document,) = cdi.documents(table.families, (gpu,))
    nodes = document["devices"][0]["containerEdits"]["deviceNodes"]
    assert all(node["type"] == "c" for node in nodes)


def test_its_memory_is_wiped_with_a_verified_pattern(gpu: DeviceFacts) -> None:
    done = CudaScrubber().scrub(gpu)
    assert (done.method, done.trouble) == ("pattern-readback", "")


def test_it_is_measured(table: DeviceTable, gpu: DeviceFacts) -> None:
    keeper = DeviceKeeper(table)
    try:
        done = keeper.certify(gpu.id)
    finally:
        keeper.close()
    if "libcublas" in done.trouble:
        pytest.skip(f"no cuBLAS on this host: {done.trouble}")
    assert (done.trouble, done.correct) == ("", True)
    assert min(done.gflops, done.memory_mbps) > 1_000


def test_it_tells_how_it_is(gpu: DeviceFacts) -> None:
    nvml = Nvml.open()
    assert nvml is not None
    try:
        vitals = by_nvml(nvml)(gpu)
        assert nvml.processes(gpu.id) is not None
    finally:
        nvml.close()
    assert vitals.power_mw
    assert vitals.temperature_milli_c


def test_a_task_opens_the_one_it_was_granted(
    table: DeviceTable, gpu: DeviceFacts, crun_runtime: Runtime, state_folder: Path
) -> None:
    bench = Bench(state_folder, crun_runtime)
    bench.sandboxes = Sandboxes(state_folder, crun_runtime, table=table)
    script = f"for n in {' '.join(gpu.nodes)}; do : <>$n || exit 9; done; ls /dev | grep -c nvidia"
    record, log = bench.run(script, devices=(gpu.id,))
    assert (record.exit_code, int(log.split()[-1])) == (0, len(gpu.nodes))
