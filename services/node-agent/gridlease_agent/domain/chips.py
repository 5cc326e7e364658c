"""A vendor's name of a chip -> the catalogue's.

>>> chip_name("NVIDIA A100-SXM4-80GB", 80 << 30)
'A100-80GB'
>>> chip_name("NVIDIA GeForce RTX 4090", 24 << 30)
'RTX-4090-24GB'
>>> chip_name("NVIDIA Jetson AGX Orin 64GB", 64 << 30)
'jetson-agx-orin'
>>> chip_name("Intel Data Center GPU Max 1550", 128 << 30)
'Max-1550-128GB'
>>> chip_name("NVIDIA A100-SXM4-40GB MIG 1g.5gb", 4864 << 20)
'A100-MIG-1g-5GB'
>>> chip_name("TPU v5e", 16 << 30)
'tpu-v5e'
>>> chip_name("AMD Alveo U250", 64 << 30)
'alveo-u250'
"""

from __future__ import annotations

import re

# What a data-centre GPU of a family really holds, in GB; drivers show a little less or more.
_SIZES_GB = (16, 20, 24, 32, 40, 48, 64, 80, 94, 96, 128, 141, 180, 192, 256, 288)
_DROPPED = re.compile(
    r"\b(nvidia|amd|intel|google|geforce|tesla|quadro|instinct|graphics|generation|ada|device|"
    r"data\s+center\s+gpu|developer\s+kit|sxm\d*|pcie|nvl|hbm\d\w*|oam|\d+\s*gi?b)\b",
    re.IGNORECASE,
)
_BOARD = re.compile(r"\b(jetson|tpu|alveo|gaudi)", re.IGNORECASE)


def cpu_chip(architecture: str) -> str:
    """``cpu-x86-64``, ``cpu-aarch64``."""
    name = architecture.lower().replace("_", "-").replace("amd64", "x86-64")
    return f"cpu-{name.replace('arm64', 'aarch64')}"


def chip_name(vendor_name: str, memory_bytes: int) -> str:
    """The catalogue's name; an unknown chip gets a name of the same form, in no catalogue."""
    words = re.sub(r"[\s_/()-]+", " ", vendor_name)
    kept = re.sub(r"[^A-Za-z0-9.]+", "-", _DROPPED.sub(" ", words)).strip("-.")
    if _BOARD.search(words):
        return kept.lower()
    if not memory_bytes:
        return kept or "unknown"
    gb = memory_bytes / (1 << 30)
    size = min(_SIZES_GB, key=lambda known: abs(known - gb))
    if abs(size - gb) > 0.1 * size:
        size = round(gb)
    return f"{kept or 'unknown'}-{size}GB"
