"""The rules for CUDA and JetPack, for one program on one device: see ``compat``."""

from __future__ import annotations

from collections.abc import Iterable

from gridlease_scheduler.domain.chips import Chip

from .facts import Capability, Facts, Jetpack, Version, dotted, version
from .verdict import Code, Compatible, Flag, Host, Incompatible, Program, Verdict


def capability_of(chip: Chip) -> Version | None:
    """A chip's compute capability; None where its architecture does not tell one."""
    return _built(chip.architecture)[0] if chip.architecture.startswith("sm_") else None


def carries(sass: Iterable[str], capability: Version, *, jetson: bool) -> bool:
    """Does code for these capabilities run on that one? Code for 8.0 also runs on 8.6, but on no
    Jetson; code for 9.0a runs on 9.0 alone.

    Source: CUDA programming guide, binary compatibility: within a major, upwards; not for Tegra.
    """
    for text in sass:
        built, exact = _built(text)
        if built == capability:
            return True
        alike = built is not None and built[0] == capability[0] and built <= capability
        if alike and not (jetson or exact):
            return True
    return False


def _built(text: str) -> tuple[Version | None, bool]:
    """A capability written as 8.6 or sm_86, and whether it stands for that one device only."""
    name = text.strip().lower().removeprefix("sm_")
    digits = name.rstrip("af")
    if digits.isascii() and digits.isdigit() and len(digits) > 1:
        digits = f"{digits[:-1]}.{digits[-1]}"
    return version(digits), digits != name and name[-1] in "af"


class Cuda:
    """The five rules, for one program on one device."""

    def __init__(self, program: Program, host: Host, chip: Chip, facts: Facts) -> None:
        self.program, self.host, self.chip, self.facts = program, host, chip, facts
        self.capability = capability_of(chip)
        self.known = facts.capability(self.capability)
        self.jetson = bool(host.l4t) or (self.known is not None and self.known.jetson)
        self.carried = self.capability is not None and carries(
            program.sass, self.capability, jetson=self.jetson
        )
        self.flags: list[Flag] = []
        self.evidence = {
            "chip": chip.name,
            "capability": dotted(self.capability) or "unknown",
            "cuda": program.cuda,
            "driver": host.driver or "unknown",
        }

    def verdict(self) -> Verdict:
        refusal = self._toolkit() if self.program.cuda else None
        if refusal is not None:
            return refusal
        if self.program.jetpack and self.known is not None and not self.known.jetson:
            return self._no(
                Code.JETPACK_MISMATCH,
                f"An image of JetPack {self.program.jetpack} is for a Jetson; {self.chip.name} is "
                "none.",
                "Ask for a Jetson, or use an image without JetPack.",
            )
        if self.jetson or self.program.jetpack:
            return self._jetson()
        return self._driver()

    def _toolkit(self) -> Incompatible | None:
        """Rule 1, and whether the program has any code for the device."""
        toolkit = self.facts.toolkit(self.program.cuda)
        if toolkit is None:
            return self._no(
                Code.DRIVER_UNKNOWN,
                f"{self.program.cuda!r} is no version of CUDA.",
                "Write the toolkit's version, such as 12.4.",
            )
        if self.known is None:
            self.flags.append(Flag.CAPABILITY_UNKNOWN)
        elif not self.known.first <= toolkit[:2] <= self.known.last:
            return self._outside(self.known)
        if self.program.sass and self.capability is not None and not self.carried:
            if not self.program.ptx:
                return self._no(
                    Code.CAPABILITY_NOT_IN_TOOLKIT,
                    f"The program carries code for {', '.join(self.program.sass)} and no PTX; "
                    f"{self.chip.name} is {dotted(self.capability)}.",
                    f"Build it for {dotted(self.capability)} as well.",
                )
            self.flags.append(Flag.PTX_JIT)
        return None

    def _outside(self, known: Capability) -> Incompatible:
        first, last = dotted(known.first), dotted(known.last)
        self.evidence |= {"first_cuda": known.first_cuda, "last_cuda": known.last_cuda}
        self.evidence["source"] = self.facts.source("capability")
        since = f" from CUDA {first} on" if known.first_cuda else ""
        until = f" up to CUDA {last}" if known.last_cuda else ""
        return self._no(
            Code.CAPABILITY_NOT_IN_TOOLKIT,
            f"CUDA {self.program.cuda} does not know {self.chip.name} (capability {known.text}, "
            f"{known.architecture}): it is known{since}{until}.",
            f"Build the program with CUDA {last if known.last_cuda else first}, "
            "or ask for another chip.",
        )

    def _driver(self) -> Verdict:
        """Rules 2 to 5."""
        driver = version(self.host.driver)
        needed = self.facts.driver_for(self.program.cuda)
        self.evidence |= {
            "driver_needed": needed or "unknown",
            "source": self.facts.source("toolkit"),
        }
        if driver is None:
            return self._no(
                Code.DRIVER_UNKNOWN,
                "The node does not tell its driver's version"
                + (f"; CUDA {self.program.cuda} needs {needed}." if needed else "."),
                "Install the NVIDIA driver on the node, or restart its agent.",
            )
        if needed is not None and driver >= (version(needed) or ()):
            return self._yes()
        toolkit = self.facts.toolkit(self.program.cuda)
        assert toolkit is not None, self.program
        floor = self.facts.floor(toolkit[0])
        above = floor is not None and driver >= (version(floor) or ())
        if above and self.carried:
            return self._yes(Flag.MINOR_VERSION)
        if self.chip.data_centre and self.program.cuda_compat:
            listed = driver[0] in self.facts.branches
            return self._yes(
                Flag.FORWARD_COMPATIBILITY, *([] if listed else [Flag.BRANCH_UNLISTED])
            )
        return self._too_old(needed, floor if above else None)

    def _too_old(self, needed: str | None, floor: str | None) -> Incompatible:
        have = self.host.driver
        if needed is None:
            return self._no(
                Code.DRIVER_UNKNOWN,
                f"The tables do not know which driver CUDA {self.program.cuda} needs; "
                f"the node has {have}.",
                "Build the program with an earlier CUDA, or with code for the device.",
            )
        message = f"CUDA {self.program.cuda} needs driver {needed} or newer; the node has {have}."
        remedy = f"Use a node with driver {needed} or newer, or an earlier CUDA."
        if floor is not None and self.capability is not None:
            carried = f"code for {dotted(self.capability)}"
            message += f" With {carried} it could run on {floor} or newer."
            remedy = f"Build the program with {carried}, or use driver {needed} or newer."
        return self._no(Code.DRIVER_TOO_OLD, message, remedy)

    def _jetson(self) -> Verdict:
        l4t = version(self.host.l4t)
        self.evidence |= {
            "l4t": self.host.l4t or "unknown",
            "source": self.facts.source("jetpack"),
        }
        if l4t is None:
            return self._unknown_l4t("The node does not tell its L4T.")
        row = self.facts.jetpack_of(l4t)
        if row is None:
            return self._unknown_l4t(f"The tables do not know L4T {self.host.l4t}.")
        if version(row.l4t) != l4t:
            self.flags.append(Flag.JETPACK_NEAREST)
        self.evidence |= {"jetpack": row.jetpack, "jetpack_cuda": row.cuda}
        if self.capability is None or dotted(self.capability) not in row.capabilities:
            return self._no(
                Code.JETPACK_MISMATCH,
                f"JetPack {row.jetpack} is for capability {' and '.join(row.capabilities)}; "
                f"{self.chip.name} is {dotted(self.capability) or 'unknown'}.",
                "Correct the node's chip or its L4T.",
            )
        if self.program.jetpack and (refusal := self._image(row, l4t)) is not None:
            return refusal
        return self._jetson_cuda(row)

    def _unknown_l4t(self, message: str) -> Incompatible:
        return self._no(
            Code.DRIVER_UNKNOWN, message, "Restart its agent, or add its JetPack to the tables."
        )

    def _image(self, row: Jetpack, l4t: Version) -> Incompatible | None:
        """May an image of the program's JetPack run on this L4T? Within a major, on its own release
        or a later one; until L4T 32 only on its own minor, because the image uses the host's files.

        Source: NVIDIA L4T base container notes.
        """
        image = self.facts.jetpack_named(self.program.jetpack)
        if image is None:
            known = ", ".join(it.jetpack for it in self.facts.jetpacks)
            return self._no(
                Code.JETPACK_MISMATCH,
                f"The tables do not know JetPack {self.program.jetpack}.",
                f"Write one of {known}.",
            )
        built = version(image.l4t) or ()
        same = built[:2] == l4t[:2] if built[0] <= 32 else built[0] == l4t[0]
        if same and l4t >= built:
            return None
        last = dotted(built[:2]) if built[0] <= 32 else str(built[0])
        return self._no(
            Code.JETPACK_MISMATCH,
            f"An image of JetPack {image.jetpack} needs L4T {image.l4t} or a later {last}.x; the "
            f"node has L4T {self.host.l4t} (JetPack {row.jetpack}).",
            f"Use an image of JetPack {row.jetpack}, or a node with L4T {image.l4t}.",
        )

    def _jetson_cuda(self, row: Jetpack) -> Verdict:
        """Rules 2, 4 and 5 on a Jetson, whose driver is its JetPack's; rule 3 is not known to hold.

        Source: CUDA for Tegra application note: upgradable from JetPack 5 (L4T 35) on.
        """
        toolkit = self.facts.toolkit(self.program.cuda)
        if toolkit is None or toolkit[:2] <= (version(row.cuda) or ()):
            return self._yes()
        major = (version(row.l4t) or (0,))[0]
        if self.program.cuda_compat and major > 32:
            return self._yes(Flag.FORWARD_COMPATIBILITY)
        would = self.facts.jetpack_for(toolkit[:2], dotted(self.capability))
        better = (
            f"JetPack {would.jetpack} (L4T {would.l4t})" if would else "no JetPack of the tables"
        )
        self.evidence["driver_needed"] = would.l4t if would else "unknown"
        return self._no(
            Code.DRIVER_TOO_OLD,
            f"CUDA {self.program.cuda} needs {better}; the node has JetPack {row.jetpack} "
            f"(L4T {self.host.l4t}) with CUDA {row.cuda}.",
            f"Build the program with CUDA {row.cuda}, or carry cuda-compat from JetPack 5 on.",
        )

    def _yes(self, *flags: Flag) -> Compatible:
        return Compatible((*self.flags, *flags), self.evidence)

    def _no(self, code: Code, message: str, remedy: str) -> Incompatible:
        return Incompatible(code, message, remedy, self.evidence)
