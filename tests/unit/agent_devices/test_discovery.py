"""Six families through one path; every host here is emulated by a fixture tree."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest
from gridlease_agent.devices import cdi
from gridlease_agent.devices import discover as finder
from gridlease_agent.devices.family import FOLDER, load, read
from gridlease_agent.devices.keeper import DeviceKeeper
from gridlease_agent.devices.nvml import Nvml
from gridlease_agent.devices.wiping import CudaScrubber
from gridlease_agent.domain.chips import chip_name
from gridlease_agent.runtimes.devices import DeviceTable
from gridlease_kernel.faults import Invalid

from tests.unit.agent_devices.hosts import TREES, grow

GIB = 1 << 30
_NO_LISTERS: dict[str, finder.Lister] = {}


@pytest.mark.parametrize(
    ("family", "count", "vendor", "chip", "memory_bytes", "nodes"),
    [
        ("nvidia", 2, "nvidia", "H100", 0, ("/dev/nvidia0", "/dev/nvidiactl", "/dev/nvidia-uvm")),
        ("jetson", 1, "nvidia", "jetson-agx-orin", 64349568 * 1024,
         ("/dev/nvhost-ctrl", "/dev/nvhost-gpu", "/dev/nvmap")),
        ("amd", 1, "amd", "MI300X", 192 * GIB, ("/dev/dri/renderD128", "/dev/kfd")),
        ("intel", 1, "intel", "Max-1550", 128 * GIB, ("/dev/dri/renderD128",)),
        ("tpu", 1, "google", "tpu-v5e", 16 * GIB, ("/dev/accel0", "/dev/vfio/vfio")),
        ("xilinx", 1, "amd", "alveo-u250", 64 * GIB, ("/dev/dri/renderD130",)),
    ],
)  # fmt: skip
def test_a_family_is_found_by_its_data_file(
    tmp_path: Path,
    family: str,
    count: int,
    vendor: str,
    chip: str,
    memory_bytes: int,
    nodes: tuple[str, ...],
) -> None:
    found = finder.discover(grow(tmp_path, family), listers=_NO_LISTERS)
    assert len(found) == count
    first = found[0]
    assert (first.vendor, first.memory_bytes) == (vendor, memory_bytes)
    assert chip_name(first.chip, first.memory_bytes).startswith(chip)
    assert first.nodes == nodes


def test_all_families_on_one_host_and_none_on_an_empty_one(tmp_path: Path) -> None:
    trees = [name for name in TREES if name != "intel"]  # its render nodes bear AMD's numbers
    found = finder.discover(grow(tmp_path / "all", *trees), listers=_NO_LISTERS)
    assert len(found) == 6
    assert len({device.id for device in found}) == len(found)
    assert finder.discover(tmp_path) == ()


def test_what_flashes_a_card_or_reads_another_is_never_handed_over(tmp_path: Path) -> None:
    trees = ("nvidia", "jetson", "xilinx")
    nodes = {
        node
        for device in finder.discover(grow(tmp_path, *trees), listers=_NO_LISTERS)
        for node in device.nodes
    }
    assert not nodes & {
        "/dev/xclmgmt15104", "/dev/nvhost-prof-gpu", "/dev/nvidia-caps/nvidia-cap1"
    }  # fmt: skip


def test_a_seventh_family_is_a_data_file(tmp_path: Path) -> None:
    folder = tmp_path / "families"
    shutil.copytree(FOLDER, folder)
    (folder / "gaudi.toml").write_text(
        """name = "gaudi"
family = "gpu"
vendor = "intel"
kind = "intel.com/gaudi"
present = ["sys/class/habanalabs"]
[list]
glob = "sys/class/habanalabs/hl*"
[list.fields]
index = { pattern = 'hl(\\d+)' }
chip = { file = "device_type", values = { GAUDI2 = "Intel Gaudi2" } }
memory = { literal = "103079215104" }
[hand]
nodes = ["/dev/accel/accel{index}"]
"""
    )
    root = tmp_path / "root"
    (root / "sys/class/habanalabs/hl3").mkdir(parents=True)
    (root / "sys/class/habanalabs/hl3/device_type").write_text("GAUDI2\n")
    (root / "dev/accel").mkdir(parents=True)
    (root / "dev/accel/accel3").touch()
    (device,) = finder.discover(root, load(folder))
    assert (device.index, device.chip, device.memory_bytes) == (3, "Intel Gaudi2", 96 * GIB)
    assert device.nodes == ("/dev/accel/accel3",)
    assert len((folder / "gaudi.toml").read_text().splitlines()) <= 50


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("", "name"),
        ("name = 'x'", "hand"),
        ("name =", ""),
        (
            "name='x'\nfamily='g'\nvendor='v'\nkind='k'\npresent=[]\n[list]\nglob='x'\n[hand]\n",
            "nodes",
        ),
        (
            "name='x'\nfamily='g'\nvendor='v'\nkind='k'\npresent=[]\n[list]\nglob='x'\n"
            "fields={id={pattern='no group'}}\n[hand]\nnodes=[]\n",
            "",
        ),
        (
            "name='x'\nfamily='g'\nvendor='v'\nkind='k'\npresent=[]\n[list]\nglob='x'\n"
            "fields={id={wrong='x'}}\n[hand]\nnodes=[]\n",
            "",
        ),
    ],
)
def test_a_bad_data_file_is_named(tmp_path: Path, text: str, field: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(Invalid) as caught:
        read(path)
    assert caught.value.reason == "BAD_FAMILY"
    assert field in str(caught.value)
    assert "bad.toml" in (caught.value.field or "")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler: the stand-in for NVML cannot be built")
    path = tmp_path_factory.mktemp("nvml") / "libnvidia-ml.so.1"
    source = Path(__file__).with_name("mock_nvml.c")
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-o", str(path), str(source)], check=True, timeout=60
    )
    return path


def test_nvml_tells_gpus_and_samples(library: Path) -> None:
    nvml = Nvml.open(str(library))
    assert nvml is not None
    try:
        assert nvml.driver() == "550.54.15"
        first, second = nvml.gpus()
        assert (first.uuid, first.memory_bytes, second.minor) == ("GPU-mock-0", 80 * GIB, 1)
        assert second.bus == "00000000:02:00.0"
        sample = nvml.sample(1)
        assert (sample.utilisation_percent, sample.power_mw, sample.temperature_c) == (
            37,
            123456,
            54,
        )
        assert sample.energy_mj == 987654321
        assert sample.ecc_uncorrected is None, "an absent function is no answer, never 0"
        assert nvml.sample(7).power_mw is None
    finally:
        nvml.close()


def test_nvml_is_preferred_and_its_absence_is_no_error(
    tmp_path: Path, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = grow(tmp_path, "nvidia")
    assert Nvml.open("libnvidia-ml-absent.so.1") is None

    def stand_in(name: str) -> ctypes.CDLL:
        del name
        return ctypes.PyDLL(str(library))

    monkeypatch.setattr(ctypes, "CDLL", stand_in)
    found = finder.discover(root)
    assert [device.id for device in found] == ["GPU-mock-0", "GPU-mock-1"]
    assert found[1].nodes == ("/dev/nvidia1", "/dev/nvidiactl", "/dev/nvidia-uvm")
    assert found[0].memory_bytes == 80 * GIB
    monkeypatch.setenv("MOCK_NVML_GPUS", "0")
    assert [device.id for device in finder.discover(root)] == ["GPU-1", "GPU-2"]


def test_instances_of_a_divided_gpu_are_devices_with_nodes_of_their_own(
    tmp_path: Path, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Emulated: two MIG instances of the first GPU, by NVML's own calls."""
    root = grow(tmp_path, "nvidia")
    for number in (1, 2, 66, 67, 75, 76):
        (root / f"dev/nvidia-caps/nvidia-cap{number}").touch()
    (root / "proc/driver/nvidia-caps").mkdir()
    (root / "proc/driver/nvidia-caps/mig-minors").write_text(
        "config 1\nmonitor 2\ngpu0/gi7/access 66\ngpu0/gi7/ci0/access 67\n"
        "gpu0/gi8/access 75\ngpu0/gi8/ci0/access 76\ngpu1/gi7/access 201\n"
    )
    (root / "usr/lib").mkdir(parents=True, exist_ok=True)
    shutil.copy(library, root / "usr/lib/libnvidia-ml.so.1")
    monkeypatch.setenv("MOCK_NVML_MIG", "2")
    found = {device.id: device for device in finder.discover(root)}
    assert list(found) == ["GPU-mock-0", "MIG-mock-0", "MIG-mock-1", "GPU-mock-1"]
    parts = [found["MIG-mock-0"], found["MIG-mock-1"]]
    assert {(part.part_of, part.apart, part.divided) for part in parts} == {
        ("GPU-mock-0", True, False)
    }
    assert (found["GPU-mock-0"].divided, found["GPU-mock-1"].divided) == (True, False)
    assert cdi.qualified(parts[1]) == "nvidia.com/gpu=MIG-mock-1"
    assert parts[1].nodes == (
        "/dev/nvidia0", "/dev/nvidia-caps/nvidia-cap75", "/dev/nvidia-caps/nvidia-cap76",
        "/dev/nvidiactl", "/dev/nvidia-uvm",
    )  # fmt: skip
    assert chip_name(parts[0].chip, parts[0].memory_bytes) == "H100-MIG-1g-10GB"
    nvml = Nvml.open(str(library))
    assert nvml is not None
    try:
        assert nvml.sample(0, "MIG-mock-1").memory_used_bytes == 1 << 30
        assert nvml.processes("MIG-mock-1") == 0
    finally:
        nvml.close()
    families = load()
    cuda = CudaScrubber(nvml=str(library))
    keeper = DeviceKeeper(DeviceTable(families, tuple(found.values()), root=root), cuda)
    try:
        assert list(keeper.lacks()) == ["GPU-mock-0"], "what is divided is lent by its parts alone"
        assert "MIG mode" in keeper.lacks()["GPU-mock-0"]
    finally:
        keeper.close()
