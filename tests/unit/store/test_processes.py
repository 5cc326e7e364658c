"""A pid is trusted only together with its start time."""

import os
import signal
import subprocess
import sys

from gridlease_store.processes import Process, process_at, works_in


def _sleeper(folder):
    return subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, cwd=folder)


def test_a_process_lives_until_it_ends(tmp_path):
    with _sleeper(tmp_path) as child:
        process = process_at(child.pid)
        assert process is not None
        assert process.alive()
        assert works_in(child.pid, tmp_path)
        assert not works_in(child.pid, tmp_path.parent)
        assert not process.wait_gone(0)
        process.signal(signal.SIGKILL)
        assert process.wait_gone(5)
        assert process_at(child.pid) is None


def test_the_same_pid_with_another_start_is_another(tmp_path):
    with _sleeper(tmp_path) as child:
        impostor = Process(child.pid, 1)
        assert not impostor.alive()
        impostor.signal(signal.SIGKILL)
        assert child.poll() is None
        child.communicate(b"\n")


def test_names_with_odd_characters_are_read():
    assert process_at(os.getpid()) is not None
    assert process_at(2**22 + 1) is None
