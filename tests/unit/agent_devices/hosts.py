"""Hosts of six families as fixture trees (emulated): what their sysfs and procfs would show."""

from __future__ import annotations

from pathlib import Path

_AMD_UEVENT = "DRIVER=amdgpu\nPCI_SLOT_NAME=0000:{bus}:00.0\n"

TREES: dict[str, dict[str, str]] = {
    "nvidia": {
        "proc/driver/nvidia/version": "NVRM version: 550.54.15",
        "sys/module/nvidia/version": "550.54.15",
        "proc/driver/nvidia/gpus/0000:01:00.0/information": (
            "Model: \t\t NVIDIA H100 80GB HBM3\nGPU UUID: \t GPU-1\nDevice Minor: \t 0\n"
        ),
        "proc/driver/nvidia/gpus/0000:02:00.0/information": (
            "Model: \t\t NVIDIA H100 80GB HBM3\nGPU UUID: \t GPU-2\nDevice Minor: \t 1\n"
        ),
        "dev/nvidia0": "", "dev/nvidia1": "", "dev/nvidiactl": "", "dev/nvidia-uvm": "",
        "dev/nvidia-caps/nvidia-cap1": "",
        "usr/lib/x86_64-linux-gnu/libcuda.so.550.54.15": "elf",
    },
    "jetson": {
        "etc/nv_tegra_release": "# R36 (release), REVISION: 3.0, GCID: 1, BOARD: generic",
        "proc/device-tree/model": "NVIDIA Jetson AGX Orin Developer Kit\0",
        "proc/device-tree/serial-number": "1421523000001\0",
        "proc/meminfo": "MemTotal:       64349568 kB\n",
        "dev/nvmap": "", "dev/nvhost-gpu": "", "dev/nvhost-ctrl": "", "dev/nvhost-prof-gpu": "",
    },
    "amd": {
        "sys/class/kfd/kfd/topology/generation_id": "2",
        "sys/class/drm/renderD128/device/vendor": "0x1002",
        "sys/class/drm/renderD128/device/device": "0x74a1",
        "sys/class/drm/renderD128/device/unique_id": "8d0c2b1a",
        "sys/class/drm/renderD128/device/mem_info_vram_total": str(192 << 30),
        "sys/class/drm/renderD128/device/uevent": _AMD_UEVENT.format(bus="c1"),
        "sys/class/drm/renderD129/device/vendor": "0x8086",
        "dev/kfd": "", "dev/dri/renderD128": "", "dev/dri/renderD129": "",
    },
    "intel": {
        "sys/module/i915/version": "1",
        "sys/class/drm/renderD128/device/vendor": "0x8086",
        "sys/class/drm/renderD128/device/device": "0x0bd5",
        "sys/class/drm/renderD128/device/uevent": "PCI_SLOT_NAME=0000:29:00.0",
        "sys/class/drm/renderD128/device/drm/card1/lmem_total_bytes": str(128 << 30),
        "sys/class/drm/renderD129/device/vendor": "0x8086",
        "sys/class/drm/renderD129/device/device": "0x9a49",
        "dev/dri/renderD128": "", "dev/dri/renderD129": "",
    },
    "tpu": {
        "sys/class/accel/accel0/device/vendor": "0x1ae0",
        "sys/class/accel/accel0/device/device": "0x0063",
        "sys/class/accel/accel0/device/uevent": "PCI_SLOT_NAME=0000:00:05.0",
        "dev/accel0": "", "dev/vfio/vfio": "",
    },
    "xilinx": {
        "sys/bus/pci/drivers/xocl/0000:3b:00.1/rom.u.1/VBNV": "xilinx_u250_gen3x16_base_4",
        "sys/bus/pci/drivers/xocl/0000:3b:00.1/rom.u.1/ddr_bank_size_bytes": str(64 << 30),
        "sys/bus/pci/drivers/xocl/0000:3b:00.1/drm_render": "renderD130",
        "dev/dri/renderD130": "", "dev/xclmgmt15104": "",
    },
}  # fmt: skip


def grow(root: Path, *families: str) -> Path:
    """A root folder that shows these families."""
    for family in families:
        for name, content in TREES[family].items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(content)
    return root
