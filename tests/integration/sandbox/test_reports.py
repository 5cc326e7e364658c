"""The report folder from both sides of a real sandbox, under each runtime."""

from __future__ import annotations

import os

import pytest
from gridlease_agent.adapters.report_folder import ReportFolders
from gridlease_agent.domain.progress import TaskReport
from gridlease_agent.runtimes.spec import SandboxSpec
from gridlease_agent.sandbox import Deadline

SAVES = (
    'cd /work/.gridlease; trap \'echo "{\\"id\\": \\"step-7\\"}" > new;'
    " mv new checkpoint.json; exit 3' TERM; echo up; while :; do sleep 0.05; done"
)
HOSTILE = {
    "links": "ln -s /proc/1/environ checkpoint.json; ln -s /etc/passwd progress.json",
    "fifos": "mkfifo checkpoint.json progress.json",
    "closed": 'echo "{}" > progress.json; chmod 0 progress.json; mkdir -m 0 checkpoint.json',
    "moved": 'cd ..; mv .gridlease x; echo "{}" > x/progress.json; ln -s x .gridlease',
    "sparse": "truncate -s 1M checkpoint.json progress.json",
}


def started(bench, script):
    """A lease with a report folder, and its reader."""
    lease_id = f"ls-reports-{os.getpid()}"
    reports = ReportFolders(bench.state_dir / "leases")
    bench.sandboxes.prepare(lease_id)
    reports.make(lease_id)
    spec = SandboxSpec(lease_id, ("/bin/sh", "-c", script), disk_bytes=4 << 20)
    bench.sandboxes.start(lease_id, spec, Deadline.after(60_000, 0))
    return lease_id, reports


def test_a_checkpoint_written_at_the_warning_is_read_after_the_end(bench):
    lease_id, reports = started(bench, SAVES)
    bench.says(lease_id, "up")
    assert reports.read([lease_id])[lease_id] == TaskReport()
    bench.sandboxes.stop(lease_id, 20_000)
    assert bench.exited(lease_id).record.exit_code == 3
    told = reports.last(lease_id).checkpoint
    assert told is not None
    assert told.id == "step-7"


@pytest.mark.parametrize("how", HOSTILE)
def test_a_task_cannot_make_the_node_read_what_is_not_its_own(bench, how):
    lease_id, reports = started(bench, f"cd /work/.gridlease; {HOSTILE[how]}; echo up; sleep 60")
    bench.says(lease_id, "up")
    report = reports.read([lease_id])[lease_id]
    assert report.checkpoint is None
    if how != "closed":  # an agent that is root reads its own task's file whatever its mode
        assert report.progress is None


def test_what_lies_in_the_folder_counts_in_the_quota(bench):
    fills = "cd /work/.gridlease; for n in 1 2 3; do head -c 3M /dev/zero > $n; done; sleep 60"
    lease_id, _reports = started(bench, fills)
    assert bench.exited(lease_id).record.reason == "DISK_QUOTA"
