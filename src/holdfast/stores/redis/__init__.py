"""Jobs in Redis or Valkey, for many machines."""

from holdfast.stores.redis.store import RedisStore

__all__ = ["RedisStore"]
