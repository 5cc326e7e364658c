"""verify-receipt on files: what a node signed holds, and nothing else does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from gridlease.type.v1 import job_pb2
from gridlease_cli.__main__ import run
from gridlease_cli.output import plain
from gridlease_kernel.receipts import wipe_text
from gridlease_mesh.credentials import new_user_key
from gridlease_mesh.signatures import Signer

_WIPED = (("GPU-1", "pattern-readback"), ("scratch", "deleted"))


@pytest.fixture
def receipt() -> job_pb2.WipeReceipt:
    signer = Signer(new_user_key()[0])
    made = job_pb2.WipeReceipt(lease="ls-1", public_key=signer.public_key)
    made.verify_time.FromNanoseconds(7_000_000_000)
    made.wiped[:], made.methods[:] = zip(*_WIPED, strict=True)
    made.signature = signer.sign(wipe_text("ls-1", signer.public_key, _WIPED, 7_000_000_000))
    return made


def _check(path: Path, *more: str) -> int:
    return run(["verify-receipt", str(path), *more])


def test_a_receipt_a_task_and_a_job_hold(
    tmp_path: Path, receipt: job_pb2.WipeReceipt, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "saved.json"
    task = job_pb2.Task(index=1, receipt=receipt)
    job = job_pb2.Job(name="projects/p/jobs/j", tasks=[job_pb2.Task(), task])
    for message, more in ((receipt, ()), (task, ()), (job, ("--task", "1"))):
        path.write_text(json.dumps(plain(message)))
        assert _check(path, *more) == 0
        assert "GPU-1 by pattern-readback" in capsys.readouterr().out
    assert _check(path, "--task", "0") == 6, "that one has none yet"


def test_a_receipt_that_was_changed_does_not_hold(
    tmp_path: Path, receipt: job_pb2.WipeReceipt
) -> None:
    path = tmp_path / "saved.json"
    path.write_text(json.dumps(plain(receipt)))
    assert _check(path, "--key", receipt.public_key) == 0
    assert _check(path, "--key", Signer(new_user_key()[0]).public_key) == 3
    for name, value in (
        ("lease", "ls-2"),
        ("methods", ["pattern-readback", "shredded"]),
        ("wiped", ["GPU-1"]),
        ("verify_time", "1970-01-01T00:00:08Z"),
        ("signature", ""),
    ):
        path.write_text(json.dumps(plain(receipt) | {name: value}))
        assert _check(path) == 3, name
    path.write_text("no JSON")
    assert _check(path) == 3
