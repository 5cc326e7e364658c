"""Can a program built for CUDA, JetPack or ROCm run on this chip under this node's driver?

The facts are data (``compat/*.toml``), given in as a value. For CUDA, with driver D, the program's
toolkit T and the device's capability C, the rules are, in this order:

1. C is outside what T knows: refused.
2. D is the driver that came with T, or newer: admitted.
3. D is of T's major at least, and the program carries code for C: admitted, flagged.
4. a data-centre GPU or a Jetson, and the program carries cuda-compat: admitted, flagged.
5. otherwise refused, naming the driver that would do.

Source: NVIDIA's CUDA compatibility guide, and the tables' own sources (``Facts.sources``).
"""

from __future__ import annotations

from gridlease_scheduler.domain.chips import Chip

from .cuda import Cuda
from .facts import Facts, version
from .verdict import Code, Compatible, Flag, Host, Incompatible, Program, Verdict

__all__ = ["Code", "Compatible", "Flag", "Host", "Incompatible", "Program", "Verdict", "check"]


def check(program: Program, host: Host, chip: Chip | None, facts: Facts) -> Verdict:
    """Can the program run here? ``chip`` None = the job asks for no accelerator."""
    ours, theirs = _cpu(program.architecture), _cpu(host.architecture)
    if ours and theirs and ours != theirs:
        return Incompatible(
            Code.ARCHITECTURE_MISMATCH,
            f"The program is built for {ours}, the node is {theirs}.",
            f"Build it for {theirs} as well, or ask for nodes of {ours}.",
            {"program": ours, "node": theirs},
        )
    if chip is None or not (program.cuda or program.jetpack or program.rocm):
        return Compatible()
    wanted = "gfx" if program.rocm else "sm_"
    if chip.architecture and not chip.architecture.startswith(wanted):
        what = "ROCm" if program.rocm else "CUDA"
        return Incompatible(
            Code.ARCHITECTURE_MISMATCH,
            f"The program is built for {what}, and {chip.name} is {chip.architecture}.",
            f"Build it for {chip.name}, or ask for a chip that has {what}.",
            {"program": what, "chip": chip.name, "architecture": chip.architecture},
        )
    if program.rocm:
        return _rocm(program, host, chip, facts)
    return Cuda(program, host, chip, facts).verdict()


def _rocm(program: Program, host: Host, chip: Chip, facts: Facts) -> Verdict:
    evidence = {
        "chip": chip.name,
        "target": chip.architecture or "unknown",
        "rocm": program.rocm,
        "driver": host.rocm or "unknown",
        "source": facts.source("rocm"),
    }
    row = facts.rocm(program.rocm)
    if row is None:
        known = ", ".join(it.rocm for it in facts.rocms)
        message = f"The tables do not know ROCm {program.rocm}."
        remedy = f"Build the program with one of {known}."
        return Incompatible(Code.ROCM_TARGET_MISSING, message, remedy, evidence)
    flags: list[Flag] = []
    if chip.architecture not in row.targets:
        if not (program.wheel and chip.architecture in row.wheel_targets):
            targets = ", ".join(row.wheel_targets if program.wheel else row.targets)
            message = f"ROCm {row.rocm} has no code for {chip.name} ({chip.architecture or '?'})."
            remedy = f"Ask for a chip of {targets}."
            return Incompatible(Code.ROCM_TARGET_MISSING, message, remedy, evidence)
        flags.append(Flag.UNOFFICIAL_TARGET)
    driver = version(host.rocm)
    low, high = version(row.driver_low) or (), version(row.driver_high) or ()
    evidence |= {"driver_needed": row.driver_low}
    if driver is None:
        message = f"The node does not tell its ROCm driver; ROCm {row.rocm} needs {row.driver_low}."
        remedy = "Install the amdgpu driver on the node, or restart its agent."
        return Incompatible(Code.DRIVER_UNKNOWN, message, remedy, evidence)
    if driver < low:
        message = (
            f"ROCm {row.rocm} needs driver {row.driver_low} or newer; the node has {host.rocm}."
        )
        remedy = f"Use a node with driver {row.driver_low} or newer, or an earlier ROCm."
        return Incompatible(Code.DRIVER_TOO_OLD, message, remedy, evidence)
    if driver[:2] > high:
        flags.append(Flag.UNTESTED_DRIVER)
    return Compatible(tuple(flags), evidence)


def _cpu(architecture: str) -> str:
    name = architecture.lower().replace("-", "_")
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(name, name)
