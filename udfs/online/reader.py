"""The online store as a service reads it: rows of an entity by key, typed, with their age, in one round trip.

A light client: it needs no pipeline file, since types and windows of the columns stand in the store beside the rows.
"""

import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self, overload

from redis import Redis, RedisCluster
from redis.asyncio import Redis as AsyncRedis
from redis.asyncio import RedisCluster as AsyncRedisCluster
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.retry import Retry

from udfs.core.online.rows import FeatureRow, SchemaBook
from udfs.core.online.schema import Key, current_key, key_text, row_key, schema_key
from udfs.online.client import async_client_of, client_of, get_many

TIMEOUT_S = 1.0


def wall_clock_ms() -> int:
    """Return the time, epoch milliseconds."""
    return time.time_ns() // 1_000_000


class OnlineStore:
    """Reads online rows; may be shared between threads.

    Every read is one MGET, of the current version of the schema and all the rows. The schema itself is fetched by the
    first read, and again by a read that meets a version it has not seen.

    Examples
    --------
    ::

        with OnlineStore.connect("redis://127.0.0.1:6379/0", "flights") as store:
            row = store.read("origin", "JFK")
            row.values["origin_dep_delay_min_mean_1h"], row.age_ms, row.drained
    """

    def __init__(self, redis: Redis | RedisCluster, prefix: str, clock_ms: Callable[[], int] = wall_clock_ms) -> None:
        self._redis, self._prefix, self._clock_ms = redis, prefix, clock_ms
        self._book = SchemaBook(prefix)

    @classmethod
    def connect(
        cls, url: str, prefix: str, *, timeout_s: float = TIMEOUT_S, clock_ms: Callable[[], int] = wall_clock_ms
    ) -> Self:
        """Return a reader; it connects at its first read, and once again when the server has closed the connection.

        Parameters
        ----------
        url : `redis://` or `rediss://`
        prefix : the pipeline's `sinks.online_store.prefix`
        timeout_s : longest wait for a connection, and for an answer
        clock_ms : what age and drained windows are judged by, epoch milliseconds

        Raises
        ------
        OnlineStoreError : the URL cannot be read.
        """
        return cls(client_of(url, **_options(timeout_s, Retry(NoBackoff(), 1))), prefix, clock_ms)

    @overload
    def read(  # type: ignore[overload-overlap]  # a text is a sequence of texts, too; it is taken for one key
        self, entity: str, keys: Key, *, now_ms: int | None = None
    ) -> FeatureRow: ...

    @overload
    def read(self, entity: str, keys: Sequence[Key], *, now_ms: int | None = None) -> list[FeatureRow]: ...

    def read(
        self, entity: str, keys: Key | Sequence[Key], *, now_ms: int | None = None
    ) -> FeatureRow | list[FeatureRow]:
        """Return the row of a key, or the rows of several in their order.

        Parameters
        ----------
        entity : its name; of several fields, their names joined by `_`
        keys : a key, as text or (for an entity of several fields) as a tuple of their values; or a list of keys
        now_ms : clock to judge by, epoch milliseconds; default: the reader's, once the answer is here

        Raises
        ------
        OnlineStoreError : nothing was written under the prefix, the entity is unknown, or a key holds no online row.
        redis.RedisError : the store cannot be reached, or refuses.
        """
        wanted = key_texts(keys)
        if not wanted:
            return []
        answers = self._book.answers(entity, wanted, self._get(store_keys(self._prefix, entity, wanted)))
        unknown = self._book.unknown(answers)
        if unknown:
            found = self._get([schema_key(self._prefix, version) for version in unknown])
            self._book.learn(dict(zip(unknown, found, strict=True)))
        rows = self._book.rows(answers, self._clock_ms() if now_ms is None else now_ms)
        return rows[0] if isinstance(keys, str | tuple) else rows

    def _get(self, keys: list[str]) -> Any:
        return get_many(self._redis, keys)

    def close(self) -> None:
        """Close the connections."""
        self._redis.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncOnlineStore:
    """Reads online rows on an event loop; see `OnlineStore`."""

    def __init__(
        self, redis: AsyncRedis | AsyncRedisCluster, prefix: str, clock_ms: Callable[[], int] = wall_clock_ms
    ) -> None:
        self._redis, self._prefix, self._clock_ms = redis, prefix, clock_ms
        self._book = SchemaBook(prefix)

    @classmethod
    def connect(
        cls, url: str, prefix: str, *, timeout_s: float = TIMEOUT_S, clock_ms: Callable[[], int] = wall_clock_ms
    ) -> Self:
        """Return a reader; see `OnlineStore.connect`."""
        options = _options(timeout_s, AsyncRetry(NoBackoff(), 1))
        return cls(async_client_of(url, **options), prefix, clock_ms)

    @overload
    async def read(  # type: ignore[overload-overlap]  # a text is a sequence of texts, too; it is taken for one key
        self, entity: str, keys: Key, *, now_ms: int | None = None
    ) -> FeatureRow: ...

    @overload
    async def read(self, entity: str, keys: Sequence[Key], *, now_ms: int | None = None) -> list[FeatureRow]: ...

    async def read(
        self, entity: str, keys: Key | Sequence[Key], *, now_ms: int | None = None
    ) -> FeatureRow | list[FeatureRow]:
        """Return the row of a key, or the rows of several in their order; see `OnlineStore.read`."""
        wanted = key_texts(keys)
        if not wanted:
            return []
        answers = self._book.answers(entity, wanted, await self._get(store_keys(self._prefix, entity, wanted)))
        unknown = self._book.unknown(answers)
        if unknown:
            found = await self._get([schema_key(self._prefix, version) for version in unknown])
            self._book.learn(dict(zip(unknown, found, strict=True)))
        rows = self._book.rows(answers, self._clock_ms() if now_ms is None else now_ms)
        return rows[0] if isinstance(keys, str | tuple) else rows

    def _get(self, keys: list[str]) -> Any:
        return get_many(self._redis, keys)

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def key_texts(keys: Key | Sequence[Key]) -> list[str]:
    """Return the texts of one key or of several."""
    return [key_text(key) for key in ([keys] if isinstance(keys, str | tuple) else keys)]


def store_keys(prefix: str, entity: str, keys: Sequence[str]) -> list[str]:
    """Return what one read asks for: the current version of the schema, and the rows."""
    return [current_key(prefix), *(row_key(prefix, entity, key) for key in keys)]


def _options(timeout_s: float, retry: object) -> dict[str, Any]:
    return {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        "retry": retry,
        "retry_on_error": [RedisConnectionError],
    }


__all__ = ["AsyncOnlineStore", "FeatureRow", "OnlineStore"]
