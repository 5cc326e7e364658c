"""What a task may say of itself, and what is no word of its own."""

from __future__ import annotations

import pytest
from gridlease_agent.domain.progress import Progress, checkpoint, progress
from gridlease_kernel.faults import Invalid


def test_a_checkpoint_is_named() -> None:
    told = checkpoint('{"id": "schritt 12 é", "more": []}'.encode(), 5)
    assert (told.id, told.saved_ns) == ("schritt 12 é", 5)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'"id"',
        b"{}",
        b'{"id": 5}',
        b'{"id": null}',
        b'{"id": ""}',
        b'{"id": "a\\u0000b"}',
        b'{"id": "a\\nb"}',
        b'{"id": "\\ud800"}',
        b'{"id": "\xff"}',
        b'{"id": "' + b"x" * 257 + b'"}',
        b"[" * 4096,
        b'{"id":' * 600,
        '{"id": "a"}'.encode("utf-16"),
    ],
)
def test_no_checkpoint(content: bytes) -> None:
    with pytest.raises(Invalid) as caught:
        checkpoint(content, 0)
    assert caught.value.reason == "TASK_REPORT_INVALID"


def test_progress_is_taken_whole() -> None:
    content = b"""{"steps": 7, "step_ms": 1.5, "batch_size": 64, "gradient_sqr": 2,
        "gradient_var": 0.5, "steps_total": 100, "in_flight": 2.5, "loss": NaN}"""
    assert progress(content) == Progress(7, 1_500_000, 64, 2.0, 0.5, 100, 2500)
    assert progress(b'{"step_ns": 4, "step_ms": 9}') == Progress(step_ns=4)
    assert progress(b"{}") == Progress()


@pytest.mark.parametrize(
    "pair",
    [
        '"steps": -1',
        '"steps": 1.0',
        '"steps": true',
        '"steps": "1"',
        '"steps": 9223372036854775808',
        '"step_ms": NaN',
        '"step_ms": 1e300',
        '"gradient_sqr": Infinity',
        '"gradient_sqr": 1e999',
        '"gradient_var": -0.5',
        '"gradient_var": ' + "9" * 400,
        '"steps_total": ' + "9" * 4000,
        '"in_flight": [1]',
        '"in_flight": false',
        '"batch_size": null',
    ],
)
def test_no_progress(pair: str) -> None:
    with pytest.raises(Invalid):
        progress(f"{{{pair}}}".encode())
