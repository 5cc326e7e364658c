"""What counts as wiped: read back, all of it, with nobody on it. Emulated by stand-in libraries."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from gridlease_agent.devices.family import load
from gridlease_agent.devices.keeper import DeviceKeeper
from gridlease_agent.devices.wiping import CudaScrubber, FileScrubber, ProgramScrubber
from gridlease_agent.probes.facts import DeviceFacts
from gridlease_agent.runtimes.devices import DeviceTable

_GPU = DeviceFacts(
    "GPU-mock-0", 0, "gpu", "nvidia", "H100", 0, "550", "0000:01:00.0", kind="nvidia.com/gpu"
)
_MARK = b"what the tenant left"


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler: the stand-ins cannot be built")
    folder = tmp_path_factory.mktemp("nvidia")
    for name, source in (("libnvidia-ml.so.1", "mock_nvml.c"), ("libcuda.so.1", "mock_cuda.c")):
        argv = [compiler, "-shared", "-fPIC", "-o", folder / name, Path(__file__).with_name(source)]
        subprocess.run(argv, check=True, timeout=60)
    return folder


@pytest.fixture
def memory(tmp_path: Path) -> Path:
    path = tmp_path / "memory"
    path.write_bytes((_MARK * 1024).ljust(16 << 20, b"\1"))
    return path


def _cuda(libraries: Path, memory: Path, **more: str) -> CudaScrubber:
    return CudaScrubber(
        str(libraries / "libcuda.so.1"),
        str(libraries / "libnvidia-ml.so.1"),
        {"MOCK_CUDA_MEMORY": str(memory), **more},
    )


def test_a_gpu_is_filled_read_back_and_left_at_zero(libraries: Path, memory: Path) -> None:
    done = _cuda(libraries, memory).scrub(_GPU)
    assert (done.method, done.trouble) == ("pattern-readback", "")
    assert memory.read_bytes().count(0) == 16 << 20


@pytest.mark.parametrize(
    ("fault", "word"), [("stuck", "not what was written"), ("hidden", "could not be reached")]
)
def test_memory_that_was_not_wiped_is_no_scrub(
    libraries: Path, memory: Path, fault: str, word: str
) -> None:
    done = _cuda(libraries, memory, MOCK_CUDA_FAULT=fault).scrub(_GPU)
    assert not done.method
    assert word in done.trouble


def test_a_gpu_in_use_or_another_one_is_no_scrub(
    libraries: Path, memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = replace(_GPU, id="GPU-00000000-0000-0000-0000-000000000000")
    assert "another device" in _cuda(libraries, memory).scrub(other).trouble
    monkeypatch.setenv("MOCK_NVML_PROCESSES", "2")
    memory.write_bytes(_MARK)
    done = _cuda(libraries, memory).scrub(_GPU)
    assert "2 process(es)" in done.trouble
    assert memory.read_bytes() == _MARK, "nobody's work is overwritten"


def test_without_its_libraries_nothing_is_claimed(memory: Path) -> None:
    absent = CudaScrubber("libcuda-absent.so.1", "libnvidia-ml-absent.so.1")
    assert "is not here" in absent.lacks()
    assert absent.scrub(_GPU).trouble


def test_a_program_is_known_by_its_digest_and_its_exit_code_counts(tmp_path: Path) -> None:
    program = tmp_path / "wipe"
    program.write_text('#!/bin/sh\ntest "$1" = GPU-mock-0 -a -z "$LD_PRELOAD"\n')
    program.chmod(0o755)
    assert "may run" in ProgramScrubber(str(program), ()).scrub(_GPU).trouble
    digest = hashlib.sha256(program.read_bytes()).hexdigest()
    assert ProgramScrubber(str(program), {digest}).scrub(_GPU).method == "program"
    assert (
        "ended with 1"
        in ProgramScrubber(str(program), {digest}).scrub(replace(_GPU, id="other")).trouble
    )


def test_files_stand_in_for_memory(memory: Path) -> None:
    way = FileScrubber("/memory{index}", memory.parent)
    assert "No such file" in way.scrub(_GPU).trouble
    memory.rename(memory.with_name("memory0"))
    assert way.scrub(_GPU).method == "file-pattern-readback"
    assert memory.with_name("memory0").read_bytes().count(0) == 16 << 20


def test_only_families_with_a_way_can_be_wiped_and_the_kernel_is_heard(tmp_path: Path) -> None:
    tpu = DeviceFacts("tpu-0", 0, "tpu", "google", "TPU v5e", 0, kind="google.com/tpu")
    log = tmp_path / "kmsg"
    log.write_text(
        "6,1,1,-;something else\n"
        "4,2,2,-;NVRM: Xid (PCI:0000:01:00): 79, pid=1, GPU has fallen off the bus.\n"
    )
    families = load()
    kinds = {family.family: family.kind for family in families if family.name != "jetson"}
    devices = (_GPU, replace(tpu, kind=kinds["tpu"]))
    keeper = DeviceKeeper(
        DeviceTable(families, devices), CudaScrubber(nvml="libnvidia-ml-absent.so.1"), str(log)
    )
    try:
        lacks = keeper.lacks()
        assert lacks["tpu-0"] == "nothing is known that wipes it"
        assert "libnvidia-ml" in lacks[_GPU.id]
        (fault,) = keeper.faults()
        assert (fault.device_id, fault.code) == (_GPU.id, "XID_79")
        assert keeper.faults() == ()
    finally:
        keeper.close()
