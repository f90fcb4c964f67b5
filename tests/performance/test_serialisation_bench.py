"""What turning things into bytes and back costs: bodies of REST, frames, kept answers of models."""

from typing import Any

import msgspec
import pytest

from evaluations.schemas import NewCase, ResultOut, Tokens
from prompts.llm.cache import MemoryCache
from prompts.llm.providers.base import Completion, Usage
from realtime.frames import Event, encode
from tests.performance.test_llm_bench import Run, run

__all__ = ["run"]

pytestmark = pytest.mark.benchmark(group="serialisation")
TEXT = "The customer is happy with the lamp. " * 30


def result(number: int) -> ResultOut:
    score = {"scorer": "equals", "value": 1.0, "passed": True, "reason": "equal", "error": None}
    return ResultOut(
        **{"id": number, "case": number, "prompt": "support/reply", "version": 3, "model": "local"},
        **{"column": 0, "repeat": 0, "state": "passed", "output": TEXT, "score": 1.0, "scores": [score]},
        **{"latency_ms": 812.5, "ttft_ms": 95.0, "tokens": Tokens(320, 210), "cost_usd": 0.0012},
        **{"cached": False, "finish_reason": "stop", "error": None, "error_code": None},
    )


def test_a_page_of_twenty_results(benchmark: Any) -> None:
    page = [result(number) for number in range(20)]
    assert benchmark(msgspec.json.encode, page).count(b'"state":"passed"') == 20


def test_five_hundred_cases_of_an_import(benchmark: Any) -> None:
    body = msgspec.json.encode([{"vars": {"message": f"{n} {TEXT}"}, "expected": "ok"} for n in range(500)])
    assert len(benchmark(msgspec.json.decode, body, type=list[NewCase])) == 500


def test_an_event_as_a_frame(benchmark: Any) -> None:
    rows = [{"id": n, "case": n, "column": 0, "state": "passed", "score": 1.0} for n in range(50)]
    event = Event("runs.1", 7, "result_recorded", msgspec.Raw(msgspec.json.encode({"results": rows})))
    assert benchmark(encode, event).wire.endswith(b"}}")


@pytest.mark.parametrize("copies", [1, 20], ids=["1 KiB", "22 KiB, compressed"])
def test_keeping_an_answer_and_finding_it(benchmark: Any, run: Run, copies: int) -> None:
    cache = MemoryCache(max_entries=10, max_bytes=1_000_000, ttl_s=60)
    usage, text = Usage(320, 210), TEXT * copies
    fields = {"finish_reason": "stop", "cost_usd": None, "ttft_ms": 95.0, "cached": False, "model": "local"}
    answer = Completion(text=text, usage=usage, latency_ms=812.5, **fields)

    async def keep_and_find() -> Completion | None:
        await cache.put("key", answer)
        return await cache.get("key")

    assert benchmark(lambda: run(keep_and_find())) == answer
