"""PostgreSQL for the rooms: an embedded server, pools, migrations, the transactional outbox."""
