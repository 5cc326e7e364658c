"""A process's life: ready while it serves, patient with others, and tasks that really end."""

import asyncio

import pytest
from gridlease_kernel.faults import Missing, Unreachable
from gridlease_mesh import lifetime


def test_the_ready_file_is_there_while_the_block_runs(tmp_path):
    path = tmp_path / "run" / "room.ready"
    with lifetime.ready(path):
        assert path.read_text().strip().isdigit()
    assert not path.exists()
    with lifetime.ready(None):
        pass


async def test_who_is_away_is_asked_again():
    asked = []

    async def work():
        asked.append(1)
        if len(asked) < 2:
            raise Unreachable("away", reason="AWAY")
        return "here"

    assert await lifetime.patiently("somebody", work) == "here"
    assert len(asked) == 2


async def test_other_trouble_passes_through():
    async def work():
        raise Missing("gone", reason="GONE")

    with pytest.raises(Missing):
        await lifetime.patiently("somebody", work)


async def test_a_task_that_loses_a_cancellation_ends_all_the_same():
    lost = []

    async def deaf_once():
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if lost:
                    raise
                lost.append(1)

    task = asyncio.create_task(deaf_once())
    await asyncio.sleep(0)
    await lifetime.ended(task)
    assert task.cancelled()
    assert lost == [1]


async def test_a_task_that_failed_is_ended_quietly():
    async def fails():
        raise ValueError

    task = asyncio.create_task(fails())
    await asyncio.sleep(0)
    await lifetime.ended(task)
    assert task.done()
