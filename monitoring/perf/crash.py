"""`perf crash`: Redis and a web process killed under a run that many follow; does everybody learn its end?"""

import asyncio
import random
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping
from contextlib import suppress
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

import msgspec
import psutil

from monitoring.perf.api import ENDED, Api, api_of
from monitoring.perf.crowd import Said
from monitoring.perf.errors import PerfError
from monitoring.perf.follower import Follower, handshake
from monitoring.perf.measuring import measured
from monitoring.perf.report import Figure, Report
from monitoring.perf.runs import CellLoad, new_cells
from monitoring.perf.server import Server

HELP = "kill Redis and a web process in the middle of a followed run: all clients must learn how it ended"
_MODEL, _LATENCY_MS = "perf-steady", 400.0
_COMES_BACK_S = (0.1, 1.0)
_POLL_S = 0.1
_PATIENCE_S = 120.0
_REDIS = ("valkey-server", "redis-server")


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--connections", type=int, default=1_000)
    parser.add_argument("--cells", type=int, default=6_000)
    parser.add_argument("--concurrency", type=int, default=100)


class _Counters(msgspec.Struct):
    """What both a snapshot and `progress` say of a run."""

    state: str
    total: int
    done: int
    passed: int
    failed: int
    errors: int


class _Watchers:
    """Clients of one run that come back whenever their connection ends."""

    known: Mapping[bytes, Any] = {}

    def __init__(self, server: Server, run_id: str) -> None:
        parts = urlsplit(server.url)
        self._address = (parts.hostname or "127.0.0.1", parts.port or 80)
        self._hello = handshake(parts.netloc, server.key)
        self._subscribe = msgspec.json.encode({"type": "subscribe", "topic": f"runs.{run_id}"})
        self._numbers: dict[Follower, int] = {}
        self._coming: set[asyncio.Task[None]] = set()
        self._is_over = False
        self.seen: dict[int, _Counters] = {}
        self.snapshots: dict[int, int] = {}
        self.returns = 0

    def come(self, number: int, delay_s: float = 0.0) -> None:
        """Open connection `number`, until that works."""
        task = asyncio.create_task(self._open(number, delay_s))
        self._coming.add(task)
        task.add_done_callback(self._coming.discard)

    def leave(self) -> None:
        self._is_over = True
        for task in self._coming:
            task.cancel()
        for follower in list(self._numbers):
            follower.transport.abort()

    @property
    def open(self) -> int:
        return len(self._numbers)

    def forget_snapshots(self) -> None:
        self.snapshots.clear()

    def connected(self, follower: Follower) -> None:
        follower.say(self._subscribe)

    def refused(self, follower: Follower, status: str) -> None:
        """The server closes; `closed` follows."""

    def hear(self, follower: Follower, known: Any) -> None:
        """Nothing is known: every frame is read."""

    def read(self, follower: Follower, frame: bytes, payload: bytes) -> None:
        said = msgspec.json.decode(payload, type=Said)
        number = self._numbers[follower]
        if said.type == "error":
            asyncio.get_running_loop().call_later(_COMES_BACK_S[1], follower.say, self._subscribe)
        elif said.type == "snapshot" or said.event == "progress":
            self.seen[number] = msgspec.json.decode(said.data, type=_Counters)
        if said.type == "snapshot":
            self.snapshots[number] = self.snapshots.get(number, 0) + 1

    def closed(self, follower: Follower, code: int) -> None:
        number = self._numbers.pop(follower)
        if not self._is_over:
            self.returns += 1
            self.come(number, random.uniform(*_COMES_BACK_S))

    async def _open(self, number: int, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        follower = Follower(self, self._hello)
        self._numbers[follower] = number
        try:
            await asyncio.get_running_loop().create_connection(lambda: follower, *self._address)
        except OSError:
            self.closed(follower, 0)


async def run(server: Server, options: Namespace) -> Report:
    """Start a run, follow it, kill, wait for the end. Raises PerfError when the processes are elsewhere."""
    redis, web = _victims(server)
    report = Report(
        command="crash",
        sent=f"a run of {options.cells:,} cells followed by {options.connections:,} clients;"
        " kill -9 of Redis at a quarter of it, of a web process at a half",
    )
    async with api_of(server) as api:
        settings = {"latency_ms": _LATENCY_MS, "output": "echo"}
        await api.ensure_model(_MODEL, provider="simulated", model="simulated", settings=settings)
        load = CellLoad(options.cells, _MODEL, _LATENCY_MS, options.concurrency)
        new = await new_cells(api, load)
        with measured(report, server):
            started = await api.ask("POST", "runs", new)
            watchers = _Watchers(server, started["id"])
            try:
                report.figures = await _crash(api, watchers, started, options, redis, web)
            finally:
                watchers.leave()
    return report


def _victims(server: Server) -> tuple[psutil.Process, list[psutil.Process]]:
    services, web = (server.processes.groups.get(kind, []) for kind in ("services", "web"))
    redis = next((each for each in services if each.name() in _REDIS), None)
    if redis is None or len(web) < 2:
        raise PerfError("`perf crash` needs `make serve` on this machine, with its own Redis.")
    return redis, web


async def _crash(
    api: Api,
    watchers: _Watchers,
    started: dict[str, Any],
    options: Namespace,
    redis: psutil.Process,
    web: list[psutil.Process],
) -> list[Figure]:
    everybody, total = options.connections, started["total"]
    for number in range(everybody):
        watchers.come(number, number / 500)
    await _until(lambda: len(watchers.seen) == everybody, "everybody follows")
    await _until(lambda: _most_done(watchers) >= total / 4, "a quarter is done")
    watchers.forget_snapshots()
    redis.kill()
    redis_s = await _until(lambda: len(watchers.snapshots) == everybody, "all are told of Redis' restart")
    await _until(lambda: _most_done(watchers) >= total / 2, "half is done")
    max(web, key=lambda each: len(each.net_connections("tcp"))).kill()
    await _until(lambda: watchers.open < everybody, "the kill is felt")
    web_s = await _until(lambda: watchers.open == everybody, "all have come back")
    run = await _ended(api, started["id"])
    truth = msgspec.convert({name: run[name] for name in _Counters.__struct_fields__}, _Counters)
    with suppress(PerfError):
        await _until(lambda: _knowing(watchers, truth) == everybody, "all know the end")
    return [
        _figure("clients that know the database's final state", _knowing(watchers, truth), everybody),
        _figure("cells done without an error", run["done"] - run["errors"], total),
        Figure(name="fresh snapshots for all after Redis was killed", value=round(redis_s, 2), unit="s"),
        Figure(name="all back after a web process was killed", value=round(web_s, 2), unit="s"),
        Figure(name="connections that were opened again", value=watchers.returns),
    ]


def _most_done(watchers: _Watchers) -> int:
    return max(counters.done for counters in watchers.seen.values())


def _knowing(watchers: _Watchers, truth: _Counters) -> int:
    return sum(counters == truth for counters in watchers.seen.values())


async def _ended(api: Api, run_id: str) -> dict[str, Any]:
    """The run when it has ended; a request that met the killed process is asked again."""
    until = monotonic() + _PATIENCE_S
    while monotonic() < until:
        with suppress(PerfError):
            run = await api.ask("GET", f"runs/{run_id}")
            if run["state"] in ENDED:
                return dict(run)
        await asyncio.sleep(_POLL_S)
    raise PerfError(f"The run has not ended within {_PATIENCE_S:.0f} s.")


async def _until(is_true: Callable[[], bool], what: str) -> float:
    """Seconds until `is_true()`. Raises PerfError when that takes too long."""
    started = monotonic()
    while not is_true():
        if monotonic() - started > _PATIENCE_S:
            raise PerfError(f"After {_PATIENCE_S:.0f} s it is not so that {what}.")
        await asyncio.sleep(_POLL_S)
    return monotonic() - started


def _figure(name: str, value: float, must: float) -> Figure:
    return Figure(name=name, value=value, better="higher", must=must)
