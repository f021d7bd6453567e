"""Fenced writes of online rows: which of two rows of a key stays, decided by Redis in one step, whoever writes.

Rows are in one total order, and the greatest stays, so the end state does not depend on who writes when, how often a
row is written, or where writers restart. They are ordered by

1. event time: an older version never replaces a newer one;
2. start of the writer: at one event time the job (or backfill) that was started last knows best. This is why sequence
   numbers of different jobs, which say nothing about each other, are never compared;
3. attempt: after a restart from a checkpoint rows may come in another order, and the newer attempt's is committed;
4. sequence number: of two events of one time the later one has seen both;
5. the SHA-1 of the row: no writer gets as far with two different rows, but any answer is better than one that depends
   on the interleaving.

Numbers are compared exactly below 2**53, far beyond any event time in milliseconds; beyond, the SHA-1 decides. Each
script touches one key, as Redis Cluster demands.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from redis.exceptions import ResponseError

from udfs.core.online.schema import CurrentSchema, OnlineSchema, current_key, schema_key
from udfs.core.online.tables import OnlineRow

SLICE_ROWS = 1_000
"""Rows in one pipeline: enough to hide the round trip, few enough that Redis serves readers in between."""

_ORDER = """
local function order(new, old)
  for i = 1, #new do
    local a, b = tonumber(new[i]), tonumber(old[i])
    if a ~= b then return a > b and 1 or -1 end
  end
  return 0
end
local function digests(a, b)
  a, b = redis.sha1hex(a), redis.sha1hex(b)
  return a > b and 1 or a < b and -1 or 0
end
local held = redis.call('GET', KEYS[1])
"""

WRITE = (
    _ORDER
    + """
local marks = '^%[(%-?%d+),(%-?%d+),(%-?%d+),(%-?%d+),'
local new = {string.match(ARGV[1], marks)}
if held then
  local old = {string.match(held, marks)}
  if #old < 4 then return redis.error_reply('WRONGTYPE holds no online row') end
  local found = order(new, old)
  if found == 0 then found = digests(ARGV[1], held) end
  if found < 0 then return 0 end
end
-- An event from ahead of the clock is within reach for longer; a year at most, whatever a row says.
local now = redis.call('TIME')
local ahead_ms = tonumber(new[1]) - (now[1] * 1000 + math.floor(now[2] / 1000))
local ttl_ms = tonumber(ARGV[2]) + math.max(0, math.min(ahead_ms, 31622400000))
redis.call('SET', KEYS[1], ARGV[1], 'PX', string.format('%.0f', ttl_ms))
return 1
"""
)

MAKE_CURRENT = (
    _ORDER
    + """
local started = '^%[(%-?%d+),'
if held then
  local found = order({string.match(ARGV[1], started)}, {string.match(held, started)})
  if found == 0 then found = digests(ARGV[1], held) end
  if found < 0 then return 0 end
end
redis.call('SET', KEYS[1], ARGV[1])
return 1
"""
)


def is_foreign(answer: object) -> bool:
    """Return whether a write was refused because its key holds something else; other errors are the server's."""
    return isinstance(answer, ResponseError) and "WRONGTYPE" in str(answer)


@dataclass(frozen=True, slots=True)
class Writer:
    """Who writes: a job or a backfill, and what it writes.

    Scripts are called by `execute_command`: a cluster's pipeline blocks `eval` and `evalsha`, since other scripts might
    touch keys of several nodes.
    """

    prefix: str
    #: when it was submitted, epoch milliseconds; the same for all its restarts
    started_ms: int
    #: how often it was restarted since
    attempt: int
    schema: OnlineSchema

    @property
    def schema_keys(self) -> tuple[str, str]:
        """What must be in the store before its rows."""
        return schema_key(self.prefix, self.schema.version), current_key(self.prefix)

    def register(self, pipeline: Any) -> None:
        """Put into a pipeline what readers need first: the schema; that of the writer started last is current."""
        own, current = self.schema_keys
        pipeline.set(own, self.schema.encode())
        text = msgspec.json.encode(CurrentSchema(self.started_ms, self.schema.version))
        pipeline.execute_command("EVAL", MAKE_CURRENT, 1, current, text)

    def queue(self, pipeline: Any, script: str, rows: Sequence[OnlineRow]) -> None:
        """Put the writes of some rows into a pipeline.

        Parameters
        ----------
        pipeline : of `redis` or `redis.asyncio`; its answers will be 1 where a row is written (or stood there), 0 where
            a newer one stays
        script : SHA-1 of `WRITE`, as `SCRIPT LOAD` gives it
        """
        version = self.schema.version.encode()
        for row in rows:
            marks = (row.event_time_ms, self.started_ms, self.attempt, row.seq)
            pipeline.execute_command(
                "EVALSHA", script, 1, row.key, b'[%d,%d,%d,%d,"%b",%b]' % (*marks, version, row.values), row.ttl_ms
            )
