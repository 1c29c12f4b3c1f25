"""Real servers for tests, the demo and benchmarks: private, on a port of the loopback, gone with whoever started them.

    with Postgres(fsync="on") as server:
        server.dsn  # postgresql://postgres@127.0.0.1:40123/postgres

Only the binaries are taken from what is installed; settings, data and log are in a temporary folder.
"""

from tools.servers.pgbouncer import Pgbouncer, pgbouncer
from tools.servers.postgres import Postgres, debian, installed
from tools.servers.valkey import Valkey, redis, server_program

__all__ = ["Pgbouncer", "Postgres", "Valkey", "debian", "installed", "pgbouncer", "redis", "server_program"]
