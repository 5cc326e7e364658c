"""The leader tells billing how full each chip is: once a window, also where another leads."""

from gridlease_testkit.waiting import eventually

CHIP = "H100-80GB"
LONG_MS = 10**12  # a window that does not end within a test


async def test_it_tells_of_each_window_once_what_is_used_and_what_waits(world):
    told = world.billing.told
    await world.start(spot_window_ms=1_000)
    agent = await world.agent("n1", chips=[CHIP] * 4)
    await world.submit(purpose=1, chips=[CHIP], count=3)
    await agent.given()
    await world.submit(purpose=1, chips=[CHIP], count=2)

    def settled():
        use = told[-1][1].get(CHIP) if told else None
        return use and (use.total_milli, use.used_milli, use.waiting_milli) == (4_000, 3_000, 2_000)

    await eventually(settled, 30, "one is told as used, the other as waiting")
    ends = [end for end, _ in told]
    assert ends == sorted(set(ends))
    assert all(end % 1_000 == 0 for end in ends)


async def test_a_new_leader_tells_of_the_same_window(world):
    told = world.billing.told
    stop = await world.start(spot_window_ms=1_000)
    await world.agent("n1", chips=[CHIP])
    await eventually(lambda: told, 30)
    await stop()
    for count in (1, 2):
        stop = await world.start(spot_window_ms=LONG_MS)

        def heard(count=count):
            return [end for end, _ in told if end % LONG_MS == 0][count - 1 :]

        await eventually(heard, 30)
        await stop()
    ends = [end for end, _ in told if end % LONG_MS == 0]
    assert len(ends) == 2
    assert len(set(ends)) == 1
