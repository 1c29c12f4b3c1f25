"""Jobs in a PostgreSQL database, for many machines."""

from holdfast.stores.postgres.store import PostgresStore

__all__ = ["PostgresStore"]
