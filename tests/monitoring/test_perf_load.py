"""Loads: what they send, and that a server's stall shows in every request it held up."""

import asyncio
import itertools
from collections.abc import AsyncIterator

import numpy as np
import pytest

from monitoring.perf.client import Client
from monitoring.perf.http import highest
from monitoring.perf.load import Prepared, closed_loop, open_loop
from monitoring.perf.recording import Recorder
from tests.monitoring.test_perf_client import OK, Local, always, serving

STALL_S, LONG_S = 0.5, 0.2


class Stalling:
    """Answers at once, but for one stall in which nobody gets an answer."""

    def __init__(self) -> None:
        self._count = 0
        self._is_open = asyncio.Event()
        self._is_open.set()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._count += 1
        if self._count == 20:
            self._is_open.clear()
            asyncio.get_running_loop().call_later(STALL_S, self._is_open.set)
        await self._is_open.wait()
        writer.write(OK)


@pytest.fixture
async def stalling() -> AsyncIterator[Local]:
    async with serving(Stalling()) as local:
        yield local


def requests(client: Client, expect: bytes = b"") -> itertools.repeat:
    return itertools.repeat(Prepared("read", client.encode("GET", "/x"), expect))


def count_above(recorder: Recorder, seconds: float) -> int:
    histogram = recorder.total()
    return histogram.total_count - sum(
        item.count_added_in_this_iter_step
        for item in histogram.get_recorded_iterator()
        if item.value_iterated_to <= seconds * 1e6
    )


async def test_at_a_promised_rate_a_stall_counts_for_all_that_were_due_in_it(stalling):
    async with Client(stalling.url, connections=2) as client:
        load = await open_loop(client, requests(client), rate=200, seconds=1)
    assert (load.sent, load.recorder.count, load.recorder.error_count) == (200, 200, 0)
    # Those due in the first 300 ms of the stall waited at least 200 ms.
    assert count_above(load.recorder, LONG_S) >= 0.8 * 200 * (STALL_S - LONG_S)
    assert load.recorder.percentile_ms(90) > LONG_S * 1000


async def test_a_closed_loop_hides_the_same_stall(stalling):
    async with Client(stalling.url, connections=1) as client:
        load = await closed_loop(client, requests(client), users=1, count=200)
    assert load.recorder.count == 200
    assert 1 <= count_above(load.recorder, LONG_S) <= 5


async def test_a_load_that_the_server_cannot_follow_ends_as_overloaded():
    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.05)
        writer.write(OK)

    async with serving(reply) as local, Client(local.url, connections=1) as client:
        load = await open_loop(client, requests(client), rate=500, seconds=5, max_open=20)
    assert load.overloaded
    assert load.per_s < 50
    assert load.sent == load.recorder.count < 100


async def test_errors_are_counted_by_status_and_by_what_the_answer_lacks():
    failing = always(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n")
    async with serving(failing) as local, Client(local.url) as client:
        refused = await open_loop(client, requests(client), rate=100, seconds=0.1)
    async with serving(always(OK)) as local, Client(local.url) as client:
        lacking = await open_loop(client, requests(client, b"cached"), rate=100, seconds=0.1)
    assert refused.recorder.errors == {"read": {"500": 10}}
    assert lacking.recorder.errors == {"read": {"unexpected": 10}}
    assert refused.per_s == 0


def test_percentiles_are_those_of_all_values_to_three_digits():
    values = np.random.default_rng(1).lognormal(-5, 1.5, 20_011)
    recorder = Recorder(10.0)
    for number, value in enumerate(values):
        recorder.add("read" if number % 3 else "write", number / 2_000, float(value))
    for percent in (50, 90, 95, 99, 99.9, 100):
        expected = np.percentile(values, percent, method="inverted_cdf") * 1000
        assert recorder.percentile_ms(percent) == pytest.approx(expected, rel=0.002)
    rows = {row.kind: row for row in recorder.latencies(10.0)}
    assert rows["total"].count == rows["read"].count + rows["write"].count == 20_011
    assert rows["total"].per_s == 2_001.1


def test_noise_is_the_deviation_between_slices_of_time():
    calm, wavering = Recorder(10.0), Recorder(10.0)
    for second in range(10):
        for _ in range(100):
            calm.add("read", second, 0.010)
            wavering.add("read", second, 0.010 * (1 + second % 2))
    assert calm.noise_ms(95) == 0
    assert wavering.noise_ms(95) == pytest.approx(np.std([10, 20] * 5, ddof=1), rel=0.01)


@pytest.mark.parametrize("capacity", [130, 1700, 9000, 0])
async def test_the_search_finds_the_highest_rate_to_five_percent(capacity):
    async def holds(rate: float) -> bool:
        return rate <= capacity

    found, steps = await highest(holds, 1000)
    assert capacity * 0.95 <= found <= capacity
    assert len(steps) < 16
