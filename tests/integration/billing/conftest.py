"""Billing's books on a real PostgreSQL of the test's own."""

import pytest
from gridlease_billing.adapters.books import PostgresBooks
from gridlease_billing.bootstrap import ROLE
from gridlease_kernel.clock import SystemClock
from gridlease_store.migrate import migrate
from gridlease_store.pool import connect_pool

from tests.integration.billing.world import World


@pytest.fixture
async def dsn(postgres):
    """The owner's DSN of a database with billing's schema."""
    template = await postgres.template(
        "billing", lambda owner: migrate(owner, "billing", "gridlease_billing", login=True)
    )
    name = await postgres.create(template)
    yield postgres.dsn(name)
    await postgres.drop(name)


@pytest.fixture
async def pool(dsn):
    """Connections as the service has them."""
    pool = await connect_pool(dsn, schema="billing", role=ROLE, max_size=16)
    yield pool
    pool.terminate()


@pytest.fixture
def books(pool):
    return PostgresBooks(pool, SystemClock(), 600_000)


@pytest.fixture
async def world(books, pool):
    """A priced chip and a tenant with 100 USD; its checks run after each test."""
    world = World(books, pool)
    await world.begin()
    yield world
    await world.check()
