"""A scheduler's world: PostgreSQL and NATS are real, billing and agents are scripted."""

import pytest
from gridlease_scheduler.adapters.store import PostgresStore
from gridlease_scheduler.bootstrap import ROLE
from gridlease_store.migrate import migrate
from gridlease_store.pool import connect_pool

from tests.integration.scheduler.world import World


@pytest.fixture
async def dsn(postgres):
    """The owner's DSN of a database with the scheduler's schema."""
    template = await postgres.template(
        "scheduler", lambda owner: migrate(owner, "scheduler", "gridlease_scheduler", login=True)
    )
    name = await postgres.create(template)
    yield postgres.dsn(name)
    await postgres.drop(name)


@pytest.fixture
async def pool(dsn):
    """Connections as the service has them."""
    pool = await connect_pool(dsn, schema="scheduler", role=ROLE, max_size=6)
    yield pool
    pool.terminate()


@pytest.fixture
def store(pool):
    return PostgresStore(pool, disconnected_ms=30_000)


@pytest.fixture
async def world(nats, dsn, state_folder):
    """Billing serves; start schedulers and agents yourself."""
    world = World(nats, dsn, state_folder)
    await world.begin()
    yield world
    await world.end()
