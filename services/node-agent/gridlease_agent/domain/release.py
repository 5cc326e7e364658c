"""How a device comes back from a lease: assigned → quarantined → scrubbing → verified → free.

Pure steps, each from one stage to the next; a step that is not due is a bug of the caller. What
must outlast a crash is one bit, ``dirty``, on disk from before the task's first instruction until
the transaction that records the proof. So a crash at any step leads back to quarantine, never to
free: ``recovered`` knows nothing but that bit and whether a sandbox still is on the device.

Source: docs/devices.md, "How a device comes back".
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace

from gridlease_agent.domain.spool import Wiped

_PAUSE_MS = 2_000
_LONGEST_PAUSE_MS = 600_000


class Stage(enum.StrEnum):
    FREE = "FREE"
    ASSIGNED = "ASSIGNED"
    QUARANTINED = "QUARANTINED"
    SCRUBBING = "SCRUBBING"
    VERIFIED = "VERIFIED"


@dataclass(frozen=True, slots=True)
class Release:
    """Where a device stands. ``tries``: scrubs that failed since it was last free; ``trouble``:
    what the last of them said. ``proof``: of the scrub that is verified and not on record yet."""

    stage: Stage
    tries: int = 0
    trouble: str = ""
    proof: Wiped | None = None

    @property
    def dirty(self) -> bool:
        """What is on disk about it: all but FREE."""
        return self.stage is not Stage.FREE


def assigned(release: Release) -> Release:
    """A lease starts on it; ``dirty`` is on disk first."""
    assert release.stage is Stage.FREE, release
    return Release(Stage.ASSIGNED)


def quarantined(release: Release) -> Release:
    """Its lease has ended: nobody may have it."""
    assert release.stage is Stage.ASSIGNED, release
    return replace(release, stage=Stage.QUARANTINED)


def scrubbing(release: Release) -> Release:
    """A scrub begins."""
    assert release.stage is Stage.QUARANTINED, release
    return replace(release, stage=Stage.SCRUBBING)


def failed(release: Release, trouble: str) -> Release:
    """It was not confirmed: back to quarantine."""
    assert release.stage is Stage.SCRUBBING, release
    return Release(Stage.QUARANTINED, release.tries + 1, trouble or "the scrub was not confirmed")


def verified(release: Release, proof: Wiped) -> Release:
    """It was confirmed; the proof is to be put on record next."""
    assert release.stage is Stage.SCRUBBING, release
    return replace(release, stage=Stage.VERIFIED, proof=proof)


def freed(release: Release) -> Release:
    """The proof is on record, in the transaction that took ``dirty`` away."""
    assert release.stage is Stage.VERIFIED, release
    assert release.proof is not None, release
    return Release(Stage.FREE)


def recovered(*, dirty: bool, held: bool) -> Release:
    """After a crash. ``held``: a live sandbox is on it."""
    if held:
        return Release(Stage.ASSIGNED)
    return Release(Stage.QUARANTINED if dirty else Stage.FREE)


def pause_ms(release: Release) -> int:
    """How long to wait before the next try: longer each time, for a device that may be broken.

    >>> pause_ms(Release(Stage.QUARANTINED, tries=3))
    8000
    """
    return min(_PAUSE_MS << min(max(0, release.tries - 1), 20), _LONGEST_PAUSE_MS)
