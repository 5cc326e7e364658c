"""What a program needs of a node, what the node has, and whether it may run there."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TypeAlias


class Code(enum.StrEnum):
    """Why a program cannot run here. Stable."""

    ARCHITECTURE_MISMATCH = "ARCHITECTURE_MISMATCH"
    CAPABILITY_NOT_IN_TOOLKIT = "CAPABILITY_NOT_IN_TOOLKIT"
    DRIVER_TOO_OLD = "DRIVER_TOO_OLD"
    DRIVER_UNKNOWN = "DRIVER_UNKNOWN"
    JETPACK_MISMATCH = "JETPACK_MISMATCH"
    ROCM_TARGET_MISSING = "ROCM_TARGET_MISSING"


class Flag(enum.StrEnum):
    """What is not certain about a program that may run here. Stable."""

    MINOR_VERSION = "MINOR_VERSION"  # driver calls that are newer than D fail (error 36)
    FORWARD_COMPATIBILITY = "FORWARD_COMPATIBILITY"  # runs by the cuda-compat that it carries
    BRANCH_UNLISTED = "BRANCH_UNLISTED"  # ... on a driver branch that the tables lack
    PTX_JIT = "PTX_JIT"  # no code for C: the driver translates it at the first start
    CAPABILITY_UNKNOWN = "CAPABILITY_UNKNOWN"  # the tables or the catalogue lack the device
    JETPACK_NEAREST = "JETPACK_NEAREST"  # judged by the nearest earlier L4T of the tables
    UNOFFICIAL_TARGET = "UNOFFICIAL_TARGET"  # in the wheel, not in AMD's list
    UNTESTED_DRIVER = "UNTESTED_DRIVER"  # newer than those that AMD tested


@dataclass(frozen=True, slots=True)
class Program:
    """What a job's image or wheel needs; an empty field asks for nothing.

    Attributes:
        architecture: Of the CPU: x86_64 or aarch64.
        cuda: Its toolkit: 12.4, or 12.4.1 with the update.
        sass: The capabilities that it carries code for; () = not stated.
        ptx: It carries PTX, from which a driver makes code for a newer device.
        cuda_compat: It carries the forward-compatible driver libraries of its toolkit.
        wheel: It is a PyTorch wheel, whose targets go beyond AMD's list.
    """

    architecture: str = ""
    cuda: str = ""
    sass: tuple[str, ...] = ()
    ptx: bool = True
    cuda_compat: bool = False
    jetpack: str = ""
    rocm: str = ""
    wheel: bool = False


@dataclass(frozen=True, slots=True)
class Host:
    """What a node reports; an empty field is not known. ``rocm``: of its kernel driver."""

    architecture: str = ""
    driver: str = ""
    l4t: str = ""
    rocm: str = ""


@dataclass(frozen=True, slots=True)
class Compatible:
    flags: tuple[Flag, ...] = ()
    evidence: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Incompatible:
    """``message`` names what would do, where the tables tell it."""

    code: Code
    message: str
    remedy: str
    evidence: dict[str, str] = field(default_factory=dict)


Verdict: TypeAlias = Compatible | Incompatible
