"""What sharing one call costs those who share it: callers in threads, and questions to a model on a loop."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

from autoforge.copies import SingleFlight
from prompts.llm.flights import Board, Flight
from prompts.llm.providers.base import Completion, Usage

pytestmark = pytest.mark.benchmark(group="single flight")
ANSWER = Completion(
    **{"text": "Hello world", "finish_reason": "stop", "usage": Usage(3, 2), "cost_usd": None},
    **{"latency_ms": 1.0, "ttft_ms": 1.0, "cached": False, "model": "m"},
)
READERS = 100


def test_alone_in_a_thread(benchmark: Any) -> None:
    flights: SingleFlight[int] = SingleFlight()
    assert benchmark(lambda: flights.run("key", lambda: 7, join_s=1)) == 7


def test_eight_threads_at_once(benchmark: Any) -> None:
    flights: SingleFlight[int] = SingleFlight()
    with ThreadPoolExecutor(8) as threads:

        def all_at_once() -> list[int]:
            return list(threads.map(lambda _: flights.run("key", lambda: 7, join_s=1), range(READERS)))

        assert benchmark(all_at_once) == [7] * READERS


@pytest.mark.parametrize("keys", [1, READERS], ids=["one question", "a question each"])
def test_a_hundred_readers_on_a_loop(benchmark: Any, keys: int) -> None:
    board = Board()

    async def call(key: str, flight: Flight) -> Completion:
        await asyncio.sleep(0)
        board.remove(key, flight)
        return ANSWER

    async def read(number: int) -> str:
        key = str(number % keys)
        parts = board.fly(key, partial(call, key), wants_parts=False)
        return [part.text async for part in parts][-1]

    async def all_at_once() -> list[str]:
        return await asyncio.gather(*map(read, range(READERS)))

    with asyncio.Runner() as runner:
        assert benchmark(lambda: runner.run(all_at_once())) == ["Hello world"] * READERS
    assert len(board) == 0
