"""What a device does is measured, kept, and measured again under another driver. Emulated."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from gridlease.type.v1 import fleet_pb2
from gridlease_agent.ailments import Ailments, marked
from gridlease_agent.certificates import Certificates
from gridlease_agent.devices.measuring import CudaMeter
from gridlease_agent.devices.scrubbed import DeviceFault, Measured, NothingKept
from gridlease_agent.domain.health import Watched
from gridlease_agent.probes.facts import DeviceFacts
from gridlease_kernel.clock import ManualClock

_GPU = DeviceFacts("GPU-0", 0, "gpu", "nvidia", "H100", 0, "550.54", emulated=True)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> str:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler: the stand-in cannot be built")
    path = tmp_path_factory.mktemp("cuda") / "libcuda.so.1"
    source = Path(__file__).with_name("mock_cuda.c")
    subprocess.run(
        [compiler, "-O2", "-shared", "-fPIC", "-o", path, source], check=True, timeout=60
    )
    return str(path)


def test_a_gpu_is_measured_and_one_that_miscalculates_is_found(
    library: str, tmp_path: Path
) -> None:
    memory = tmp_path / "memory"
    memory.write_bytes(bytes(1 << 20))
    variables = {"MOCK_CUDA_MEMORY": str(memory)}
    meter = CudaMeter(library, ("libcublas-absent.so", library), variables, size=64)
    done = meter.measure(_GPU)
    assert (done.trouble, done.correct) == ("", True)
    assert done.memory_mbps > 0
    wrong = replace(meter, variables=variables | {"MOCK_CUDA_FAULT": "wrong"}).measure(_GPU)
    assert (wrong.trouble, wrong.correct) == ("", False)
    assert replace(meter, cublas=("libcublas-absent.so",)).measure(_GPU).trouble


class _Keeper(NothingKept):
    def __init__(self, answer: Measured) -> None:
        super().__init__(emulated=True)
        self.answer, self.asked = answer, 0
        self.said: tuple[DeviceFault, ...] = ()

    def certify(self, device_id: str) -> Measured:
        del device_id
        self.asked += 1
        return self.answer

    def faults(self) -> tuple[DeviceFault, ...]:
        said, self.said = self.said, ()
        return said


async def test_it_is_measured_once_for_each_driver_and_drift_is_an_ailment(tmp_path: Path) -> None:
    keeper, told = _Keeper(Measured(1000, 2000, True)), [0]
    ailments = Ailments(tmp_path, keeper, dict, lambda: told.append(1))

    def certificates(device: DeviceFacts) -> Certificates:
        return Certificates(tmp_path, (device,), keeper, ManualClock(), ailments.judged)

    first = certificates(_GPU)
    for _ in range(3):
        await first.measure("GPU-0")
    assert keeper.asked == 1
    assert certificates(_GPU).due() == frozenset()
    newer = certificates(replace(_GPU, driver="580.1"))
    assert newer.due() == {"GPU-0"}
    keeper.answer = Measured(1000, 2000, False)
    await newer.measure("GPU-0")
    assert "fp64" in ailments.now()["GPU-0"]
    record = fleet_pb2.NodeInventory(
        devices=[fleet_pb2.Device(id="GPU-0", state=fleet_pb2.DEVICE_STATE_CLEAN)]
    )
    (device,) = marked(record, (_GPU,), ailments.now(), newer.now()).devices
    assert device.state == fleet_pb2.DEVICE_STATE_DIRTY
    assert device.ailment.startswith("certification: ")
    assert (device.certification.gflops, device.certification.emulated) == (1000, True)
    assert device.certification.driver == "580.1"


async def test_faults_outlast_a_restart_and_end_with_a_good_measurement(tmp_path: Path) -> None:
    keeper, told = _Keeper(Measured(1, 1, True)), []
    ailments = Ailments(tmp_path, keeper, dict, lambda: told.append(1))
    keeper.said = (DeviceFault("GPU-0", "XID_79", "the device fell off the bus"),)
    ailments.watched = {"GPU-1": Watched(fault="OVERHEATED", message="99 °C for a minute")}
    for _ in range(3):
        await ailments.look()
    assert ailments.now() == {
        "GPU-0": "xid-79: the device fell off the bus",
        "GPU-1": "overheated: 99 °C for a minute",
    }
    assert told == [1], "told once"
    again = Ailments(tmp_path, keeper, lambda: {"GPU-0": "scrub-failed: x", "GPU-2": "y"}, int)
    assert again.now()["GPU-0"].startswith("xid-79")
    assert again.now()["GPU-2"] == "y"
    again.judged("GPU-0", "")
    assert again.now()["GPU-0"] == "scrub-failed: x"


async def test_a_doubt_is_told_while_it_lasts_and_kept_nowhere(tmp_path: Path) -> None:
    told: list[int] = []
    ailments = Ailments(
        tmp_path, NothingKept(emulated=True), dict, lambda: told.append(len(ailments.now()))
    )
    ailments.watched = {"GPU-0": Watched(doubt="its power is not to be had")}
    await ailments.look()
    assert ailments.now() == {"GPU-0": "suspect: its power is not to be had"}
    ailments.watched = {"GPU-0": Watched()}
    await ailments.look()
    assert ailments.now() == {}
    assert told == [1, 0]
    assert not (tmp_path / "ailments.json").exists()
