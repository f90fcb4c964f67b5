"""PostgreSQL behind a pool that is cheap to enter and leave."""
