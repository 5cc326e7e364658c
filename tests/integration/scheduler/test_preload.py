"""What nodes are told to have at hand, from the jobs of late in a real database."""

from gridlease_testkit.waiting import eventually


async def test_a_node_hears_which_images_are_popular(world):
    await world.start()
    for _ in range(3):
        await world.submit(image="registry.example/team/app:v1")
    agent = await world.agent(chips=())

    async def told():
        return (await agent.sync()).preload

    found = await eventually(told, what="a wish")
    assert [(x.image, x.tenant) for x in found] == [("registry.example/team/app:v1", "")]
