"""Redis clients of the online store, made from a URL whose password appears in no message.

`?cluster=true` in the URL makes a client of Redis Cluster; what the store does with a client works with either kind.
"""

from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from redis import Redis, RedisCluster
from redis.asyncio import Redis as AsyncRedis
from redis.asyncio import RedisCluster as AsyncRedisCluster

from udfs.core.online.schema import OnlineStoreError


def client_of(url: str, **options: Any) -> Any:
    """Return the client of a URL; it connects at its first command, that of a cluster at once.

    Parameters
    ----------
    url : `redis://` or `rediss://`, secrets resolved
    options : of the client

    Raises
    ------
    OnlineStoreError : the URL cannot be read. The parser's own message is not passed on: it quotes the URL.
    """
    return _made(Redis.from_url, RedisCluster.from_url, url, options)


def async_client_of(url: str, **options: Any) -> Any:
    """Return the asyncio client of a URL; it connects at its first command. See `client_of`."""
    return _made(AsyncRedis.from_url, AsyncRedisCluster.from_url, url, options)


def get_many(client: Any, keys: list[str]) -> Any:
    """Return the texts of some keys (or what is to be awaited for them), None for those that are not there.

    One command; a cluster gets one per hash slot, those of a node in one round trip and all nodes side by side.
    """
    return getattr(client, "mget_nonatomic", client.mget)(keys)


def _made(single: Any, cluster: Any, url: str, options: dict[str, Any]) -> Any:
    try:
        parts = urlsplit(url)
        query = dict(parse_qsl(parts.query))
        make = cluster if query.pop("cluster", "") == "true" else single
        return make(urlunsplit(parts._replace(query=urlencode(query))), **options)
    except ValueError:
        pass
    msg = "the URL of the online store cannot be read; expected redis://[user:password@]host:port/db (or rediss://), "
    msg += "with /, @, #, ? and % in a user or password percent-encoded; it is not shown, since it may hold a password"
    raise OnlineStoreError(msg)
