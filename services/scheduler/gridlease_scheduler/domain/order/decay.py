"""How much of what a tenant has used still counts against it: half of it after seven days.

The unit is ``snapshot.Share.used``: thousandths of device-milliseconds, weighted by throughput
(the reference chip has 100). An amount of an instant is multiplied by ``2 ** -(age / half-life)``;
a lease uses evenly, so what counts of it is the integral of that over its run.
"""

from __future__ import annotations

import math

HALF_LIFE_MS = 7 * 86_400_000
_REFERENCE = 100
_MEAN_MS = HALF_LIFE_MS / math.log(2)


def used_lately(quantity_milli: int, throughput: int, ran_ms: int) -> int:
    """What a lease that has run for ``ran_ms`` until now counts now.

    Args:
        quantity_milli: Thousandths of devices, or of CPU cores.
        throughput: Of its chip, for training; the reference has 100.
    """
    whole_ms = _MEAN_MS * -math.expm1(-max(0, ran_ms) / _MEAN_MS)
    return round(quantity_milli * throughput / _REFERENCE * whole_ms)
