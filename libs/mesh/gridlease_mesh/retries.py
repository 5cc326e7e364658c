"""Which calls may be made again, and how many: only idempotent ones, within a budget.

A method is idempotent where its proto says so (``option idempotency_level``) or the channel's
maker names it. The budget is a token bucket as in gRPC's retry throttling: a retry costs one
token, a success earns a tenth, so retries stay below a tenth of the calls while a service is ill.
Source: gRFC A6.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Collection

from google.protobuf import descriptor_pb2, descriptor_pool

MAX_ATTEMPTS = 3
BUDGET_TOKENS = 10.0
TOKENS_PER_SUCCESS = 0.1
_FIRST_WAIT_S = 0.05
_LONGEST_WAIT_S = 1.0
_LEVELS = frozenset(
    {
        descriptor_pb2.MethodOptions.IDEMPOTENT,
        descriptor_pb2.MethodOptions.NO_SIDE_EFFECTS,
    }
)


@functools.cache
def is_idempotent(method: str) -> bool:
    """Whether the proto of ``/package.Service/Method``, if it is loaded, calls it idempotent."""
    try:
        found = descriptor_pool.Default().FindMethodByName(method.strip("/").replace("/", "."))
    except KeyError:
        return False
    return found.GetOptions().idempotency_level in _LEVELS


def wait_s(attempt: int) -> float:
    """How long to wait before the attempt after the ``attempt``-th (from 1): jittered."""
    longest: float = min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2 ** min(attempt - 1, 10))
    return longest * random.uniform(0.5, 1.0)  # noqa: S311 - jitter


class Retries:
    """The policy of one channel."""

    def __init__(
        self, idempotent: Collection[str] = (), *, budget_tokens: float = BUDGET_TOKENS
    ) -> None:
        self._named = frozenset(idempotent)
        self._most = budget_tokens
        self._tokens = budget_tokens

    def covers(self, method: str) -> bool:
        """Whether a call of the method may be made again at all."""
        return method in self._named or is_idempotent(method)

    def earn(self) -> None:
        """A call succeeded."""
        self._tokens = min(self._most, self._tokens + TOKENS_PER_SUCCESS)

    def spend(self, attempt: int) -> bool:
        """Whether, after the ``attempt``-th try, there may be one more; pays for it."""
        if attempt >= MAX_ATTEMPTS or self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True
