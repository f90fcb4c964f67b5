"""Crowds of WebSocket clients in processes of their own, as the generator drives them."""

import asyncio
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import TypeVar

import msgspec
from django.conf import settings

from monitoring.perf.crowd import Connected, Heard, Plan, Told
from monitoring.perf.errors import PerfError

# A crowd reports a line of some hundred KiB.
_LINE_BYTES = 2**26
_STOP_S = 20.0
T = TypeVar("T")


class Crowds:
    """Several crowds as one."""

    def __init__(self, processes: list[asyncio.subprocess.Process]) -> None:
        self._processes = processes

    async def connect(self) -> Connected:
        """Connect everybody."""
        parts = await self._ask("connect", Connected)
        return Connected(
            seconds=max(part.seconds for part in parts),
            handshakes_ms=[each for part in parts for each in part.handshakes_ms],
            failures=_sum(part.failures for part in parts),
        )

    async def say(self, command: str) -> None:
        """`start` or `read again`."""
        await self._ask(command, object)

    async def tell(self) -> Told:
        """What all of them have seen."""
        parts = await self._ask("tell", Told)
        return Told(
            open=sum(part.open for part in parts),
            cpu_s=sum(part.cpu_s for part in parts),
            events=merged(event for part in parts for event in part.events),
            gaps=sum(part.gaps for part in parts),
            snapshots=sum(part.snapshots for part in parts),
            closes=_sum(part.closes for part in parts),
            first_token_ms=[each for part in parts for each in part.first_token_ms],
            completed_ms=[each for part in parts for each in part.completed_ms],
            failures=_sum(part.failures for part in parts),
        )

    async def _ask(self, command: str, type: type[T]) -> list[T]:
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(f"{command}\n".encode())
        return await asyncio.gather(*(_answer(process, type) for process in self._processes))


def merged(heard: "Iterator[Heard]") -> list[Heard]:
    """One entry an event, in order; percentiles are those of the later crowd."""
    events: dict[int, Heard] = {}
    for one in heard:
        other = events.get(one.number)
        events[one.number] = one if other is None else _both(one, other)
    return [events[number] for number in sorted(events)]


@asynccontextmanager
async def crowds(plan: Plan, processes: int) -> AsyncIterator[Crowds]:
    """The plan shared out among `processes`; they end with the block. Raises PerfError when one dies."""
    started: list[asyncio.subprocess.Process] = []
    try:
        for number in range(processes):
            started.append(await _start(_share(plan, number, processes)))
        yield Crowds(started)
    finally:
        await asyncio.gather(*(_stop(process) for process in started))


async def _start(plan: Plan) -> asyncio.subprocess.Process:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "monitoring.perf.crowd",
        cwd=settings.BASE_DIR,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=_LINE_BYTES,
    )
    assert process.stdin is not None
    process.stdin.write(msgspec.json.encode(plan) + b"\n")
    return process


async def _stop(process: asyncio.subprocess.Process) -> None:
    assert process.stdin is not None
    process.stdin.close()
    try:
        async with asyncio.timeout(_STOP_S):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


async def _answer(process: asyncio.subprocess.Process, type: type[T]) -> T:
    assert process.stdout is not None
    line = await process.stdout.readline()
    if not line:
        raise PerfError(f"A process of WebSocket clients ended with {await process.wait()}.")
    return msgspec.json.decode(line, type=type)


def _share(plan: Plan, number: int, processes: int) -> Plan:
    def part(whole: int) -> int:
        return whole // processes + (number < whole % processes)

    return msgspec.structs.replace(
        plan,
        count=part(plan.count),
        per_s=plan.per_s / processes,
        busy=part(plan.busy),
        not_reading=part(plan.not_reading),
        completing=part(plan.completing),
    )


def _both(one: Heard, other: Heard) -> Heard:
    return Heard(
        number=one.number,
        count=one.count + other.count,
        first=min(one.first, other.first),
        p50=max(one.p50, other.p50),
        p99=max(one.p99, other.p99),
        last=max(one.last, other.last),
    )


def _sum(parts: Iterator[dict[str, int]]) -> dict[str, int]:
    return dict(sum((Counter(part) for part in parts), Counter()))
