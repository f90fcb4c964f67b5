"""The gates of all endpoints: what a vendor bears is shared out among the processes that call it.

Every event loop has a gate for each endpoint it calls. With Redis they are one: each tells at once what
the vendor refused, and every second how many calls it has and wants; a script adapts the endpoint's whole
concurrency as `Gate` does alone, and answers with the part that this loop's demand has in it. A part is at
least one call. While Redis is away each gate adapts by itself.
"""

import asyncio
import math
import time
import uuid
from contextlib import suppress

from django.conf import settings

from prompts.llm import redis
from prompts.llm.adaptive import MIN_CONCURRENCY, Gate
from prompts.llm.per_loop import PerLoop
from prompts.llm.providers.base import Endpoint

TELL_EVERY_S = 1.0
# A burst of refusals is told in one.
TELL_PAUSE_S = 0.05

_TELL = redis.Script(
    """
    -- KEYS: state {limit, peak, cut: ms, m<loop>: "demand in_flight ms"}
    -- ARGV: loop, demand, in flight, successes, age of the refused call in ms (-1: none), interval in ms
    local clock = redis.call('TIME')
    local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
    local demand, in_flight = tonumber(ARGV[2]), tonumber(ARGV[3])
    local wanted, flying, state = demand, in_flight, {}
    local flat = redis.call('HGETALL', KEYS[1])
    for i = 1, #flat, 2 do
      if string.sub(flat[i], 1, 1) ~= 'm' then
        state[flat[i]] = tonumber(flat[i + 1])
      elseif flat[i] ~= 'm' .. ARGV[1] then
        local theirs, their_flying, seen = string.match(flat[i + 1], '(%d+) (%d+) (%d+)')
        if tonumber(seen) < now - 5 * ARGV[6] then
          redis.call('HDEL', KEYS[1], flat[i])
        else
          wanted, flying = wanted + theirs, flying + their_flying
        end
      end
    end
    redis.call('HSET', KEYS[1], 'm' .. ARGV[1], ARGV[2] .. ' ' .. ARGV[3] .. ' ' .. now)
    redis.call('PEXPIRE', KEYS[1], 600000)
    local limit, age = state.limit, tonumber(ARGV[5])
    if age >= 0 and now - age >= (state.cut or 0) then
      limit = math.max(1, flying / 2)
      redis.call('HSET', KEYS[1], 'limit', tostring(limit), 'cut', now)
      if not state.limit then redis.call('HSET', KEYS[1], 'peak', flying) end
    elseif limit then
      -- One more for each round: d(limit)/d(success) is 1/limit.
      limit = math.sqrt(limit * limit + 2 * ARGV[4])
      if limit > state.peak then
        redis.call('HDEL', KEYS[1], 'limit', 'peak')
        limit = nil
      else
        redis.call('HSET', KEYS[1], 'limit', tostring(limit))
      end
    end
    if not limit then return -1 end
    return math.floor(wanted > 0 and limit * demand / wanted or limit)
    """
)

Key = tuple[str, str]


def gate_of(endpoint: Endpoint) -> Gate:
    """The running loop's gate to `endpoint`; it is kept as long as it is in use."""
    return _gates.get().of((endpoint.project, endpoint.name))


class Gates:
    """Those of one event loop, each with a task that keeps it."""

    def __init__(self) -> None:
        self._loop_id = uuid.uuid4().hex
        self._gates: dict[Key, Gate] = {}
        self._keepers: set[asyncio.Task[None]] = set()

    def of(self, key: Key) -> Gate:
        if (gate := self._gates.get(key)) is None:
            # What others learned of the vendor comes in a moment: one call need not wait for it.
            gate = self._gates[key] = Gate(is_shared=bool(settings.REDIS_URL))
            keeper = asyncio.create_task(self._keep(key, gate))
            self._keepers.add(keeper)
            keeper.add_done_callback(self._keepers.discard)
        return gate

    async def close(self) -> None:
        for keeper in list(self._keepers):
            keeper.cancel()

    async def _keep(self, key: Key, gate: Gate) -> None:
        is_known = not settings.REDIS_URL
        try:
            while True:
                if settings.REDIS_URL:
                    gate.is_shared = await self._share(key, gate)
                    if not (gate.is_shared or is_known):
                        gate.adopt(math.inf)
                    is_known = True
                with suppress(TimeoutError):
                    async with asyncio.timeout(TELL_EVERY_S):
                        await gate.was_refused.wait()
                        await asyncio.sleep(TELL_PAUSE_S)
                if gate.is_idle:
                    break
                if not settings.REDIS_URL:
                    gate.take_tally()  # nobody asks for it
        finally:
            del self._gates[key]

    async def _share(self, key: Key, gate: Gate) -> bool:
        """Tell the others and take our part; False while Redis is away."""
        tally, demand = gate.take_tally(), gate.demand
        age_ms, in_flight = -1, gate.in_flight
        if tally.refused_start is not None:
            age_ms = int((time.monotonic() - tally.refused_start) * 1000)
            in_flight = max(in_flight, tally.in_flight)
        told = (self._loop_id, demand, in_flight, tally.successes, age_ms, int(TELL_EVERY_S * 1000))
        try:
            part = await redis.clients.get().script(_TELL, [_state_key(key)], *told)
        except redis.RedisDown:
            return False
        gate.adopt(math.inf if part < 0 else max(MIN_CONCURRENCY, part))
        return True


_gates: PerLoop[Gates] = PerLoop(Gates, Gates.close)


def _state_key(key: Key) -> str:
    project, name = key
    return f"af:limits:{{{project}:{name}}}:gate"
