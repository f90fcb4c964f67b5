"""`perf websocket`: thousands of clients that follow one topic, and how late the last one has each event."""

import asyncio
import math
import uuid
from argparse import ArgumentParser, Namespace
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from resource import RLIMIT_NOFILE, getrlimit
from time import monotonic
from typing import NamedTuple
from urllib.parse import urlsplit

from monitoring.perf import listening, mix, telling
from monitoring.perf.api import Api, api_of
from monitoring.perf.client import Client
from monitoring.perf.crowd import LABELS, Plan, marker
from monitoring.perf.crowds import Crowds, crowds
from monitoring.perf.errors import PerfError
from monitoring.perf.listening import Seen
from monitoring.perf.load import Prepared, open_loop
from monitoring.perf.measuring import measured
from monitoring.perf.report import Figure, Report
from monitoring.perf.runs import CellLoad, new_cells
from monitoring.perf.server import Server

HELP = "clients on one topic: memory each, the time until the last one has an event, closes and gaps"
_TOPIC, _MODEL, _BUSY_MODEL = "prompts", "perf-telling", "perf-busy"
# A client address has some 28,000 ports: a further address for every so many connections.
_PER_SOURCE = 4_000
_SAMPLE_S = 0.5
# What is on its way when the load ends arrives within this time.
_SETTLE_S = 3.0
_CLOSED_SLOW = "autoforge_websocket_slow_closed_total"
_DROPPED = "autoforge_websocket_events_dropped_total"
_MAX_SLOW_S = 60.0
_WARM_UP_CALLS = 8
# Open files a connection: a process has others, and the kernel shares connections out unevenly.
_OPEN_FILES_SHARE = 1.25


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--duration", type=float, default=60.0, help="seconds of events")
    parser.add_argument("--events", type=float, default=10.0, help="events per second")
    parser.add_argument("--connect-rate", type=float, default=700.0, help="new connections per second")
    parser.add_argument("--clients", type=int, default=2, help="client processes")
    parser.add_argument(
        "--not-reading",
        type=float,
        default=0.0,
        metavar="PERCENT",
        help="who stop reading a busy run",
    )
    parser.add_argument("--but-reading", action="store_true", help="the control: they follow, and read")
    parser.add_argument("--completions", type=int, default=0, help="clients that also stream completions")
    parser.add_argument(
        "--rest-rate", type=float, default=0.0, help="REST mix beside it, requests per second"
    )
    parser.add_argument("--server", default="", help="a name for the report, if not that of the web server")


async def run(server: Server, options: Namespace) -> Report:
    """Connect, let things happen, count what everybody got."""
    _require_open_files(server, options)
    report = Report(command=_command(options, server), sent=_description(options))
    async with AsyncExitStack() as stack:
        api = await stack.enter_async_context(api_of(server, connections=32))
        rest = await stack.enter_async_context(_rest_of(server, options))
        prompt = await _prepare(api, options)
        followers = round(options.connections * options.not_reading / 100)
        deaf = 0 if options.but_reading else followers
        busy_topic = await stack.enter_async_context(_busy_run(api)) if followers else ""
        plan = _plan(server, options, prompt, (followers, deaf), busy_topic)
        before_mib, counts = server.processes.rss_mib("web"), await _counters(api)
        crowd = await stack.enter_async_context(crowds(plan, options.clients))
        connected = await crowd.connect()
        held_mib, each_mib = server.processes.rss_mib("web"), server.processes.each_rss_mib("web")
        seen = Seen()
        with measured(report, server):
            async with _sampled(server, seen):
                await _load(api, crowd, seen, options, plan, rest)
        told = await crowd.tell()
        after = await _counters(api)
    report.figures = [
        *listening.connecting(connected, options),
        *listening.memory(before_mib, held_mib, seen, options),
        *listening.delivery(seen, told, options.connections - deaf),
        Figure(name="events that could not be emitted", value=len(seen.not_emitted), must=0, better="lower"),
        *listening.ends(told, deaf, after[_CLOSED_SLOW] - counts[_CLOSED_SLOW]),
        Figure(name="events dropped by the server", value=after[_DROPPED] - counts[_DROPPED]),
    ]
    report.cores["clients"] = round(told.cpu_s / report.seconds, 2)
    listening.add_beside(report, seen, told, options)
    report.latencies.insert(0, listening.latencies(seen, told, options.duration))
    listening.add_notes(report, connected, told, each_mib)
    return report


def _command(options: Namespace, server: Server) -> str:
    extras = [
        f"--not-reading {options.not_reading:g}" if options.not_reading else "",
        "--but-reading" if options.but_reading else "",
        f"--completions {options.completions}" if options.completions else "",
        f"--rest-rate {options.rest_rate:g}" if options.rest_rate else "",
        f"--server {name}" if (name := options.server or server.processes.web_server) else "",
    ]
    return " ".join(["websocket", *filter(None, extras)])


def _require_open_files(server: Server, options: Namespace) -> None:
    """Raises PerfError when the connections are more than the files that processes here may open."""
    own = getrlimit(RLIMIT_NOFILE)[1] * options.clients
    for whose, may, remedy in (
        ("the client processes", own, "raise `ulimit -Hn` or give more --clients"),
        ("the web processes", server.processes.open_files("web"), "raise `ulimit -Hn` and start them again"),
    ):
        if may is not None and may < options.connections * _OPEN_FILES_SHARE:
            raise PerfError(
                f"{options.connections:,} connections need as many open files and some more,"
                f" and {whose} may open {may:,} together: {remedy}."
            )


def _description(options: Namespace) -> str:
    return (
        f"{options.connections:,} connections on `{_TOPIC}` from {options.clients} processes,"
        f" {options.events:g} events/s for {options.duration:g} s"
    )


def _plan(server: Server, options: Namespace, prompt: str, busy: tuple[int, int], busy_topic: str) -> Plan:
    parts = urlsplit(server.url)
    if parts.scheme != "http":
        raise PerfError("`perf websocket` speaks no TLS: measure behind what ends it.")
    host = parts.hostname or "127.0.0.1"
    addresses = math.ceil(options.connections / _PER_SOURCE) if host.startswith("127.") else 0
    return Plan(
        host=host,
        port=parts.port or 80,
        key=server.key,
        topic=_TOPIC,
        prompt=prompt,
        count=options.connections,
        per_s=options.connect_rate,
        sources=[f"127.0.1.{number + 1}" for number in range(addresses)],
        busy=busy[0],
        not_reading=busy[1],
        busy_topic=busy_topic,
        completing=options.completions,
        model=_MODEL,
    )


async def _prepare(api: Api, options: Namespace) -> str:
    """A prompt with as many versions as the labels that stand for the events need."""
    prompt = f"perf/live-{uuid.uuid4().hex}"
    for number in range(math.ceil(options.events * options.duration / LABELS) + 1):
        await api.ensure_prompt(prompt, f"version {number}")
    if options.completions:
        await api.ensure_model(_MODEL, provider="simulated", model="telling", settings=telling.SETTINGS)
        # The first call of each process loads what calls need.
        asked = {"model": _MODEL, "messages": [{"role": "user", "content": prompt}]}
        await asyncio.gather(*(api.ask("POST", "completions", asked) for _ in range(_WARM_UP_CALLS)))
    return prompt


class _Rest(NamedTuple):
    """What is asked beside the events."""

    client: Client
    requests: Iterator[Prepared]


@asynccontextmanager
async def _rest_of(server: Server, options: Namespace) -> AsyncIterator[_Rest | None]:
    """The mix, in a project that nobody follows. Where they would be events, without its writes."""
    if not options.rest_rate:
        yield None
        return
    apart = replace(server, key=server.other_key or server.key)
    async with api_of(apart, connections=32) as api:
        requests = mix.mixed(api.client, await mix.prepare(api))
        if not server.other_key:
            requests = (each for each in requests if each.kind != "write")
        yield _Rest(api.client, requests)


@asynccontextmanager
async def _busy_run(api: Api) -> AsyncIterator[str]:
    """The topic of a run with much to tell, that ends with the block."""
    settings = {"latency_ms": 150, "output": "echo"}
    await api.ensure_model(_BUSY_MODEL, provider="simulated", model="simulated", settings=settings)
    new = await new_cells(api, CellLoad(10_000, _BUSY_MODEL, 150.0, 100))
    run_id = (await api.ask("POST", "runs", new | {"repeats": 10}))["id"]
    try:
        yield f"runs.{run_id}"
    finally:
        await api.answer("POST", f"runs/{run_id}/cancel")


async def _load(
    api: Api, crowd: Crowds, seen: Seen, options: Namespace, plan: Plan, rest: _Rest | None
) -> None:
    await crowd.say("start")
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_emit(api, seen, options, plan.prompt))
        if plan.not_reading:
            tasks.create_task(_let_read(api, crowd, plan.not_reading))
        if rest is not None:
            tasks.create_task(_ask(rest, seen, options))
    await asyncio.sleep(_SETTLE_S)


async def _emit(api: Api, seen: Seen, options: Namespace, prompt: str) -> None:
    """Move labels on a fixed schedule; an event's clock runs from the moment its request is sent."""
    begun = monotonic()
    async with asyncio.TaskGroup() as requests:
        for number in range(int(options.events * options.duration)):
            await asyncio.sleep(max(0.0, begun + number / options.events - monotonic()))
            seen.emitted[number] = monotonic()
            requests.create_task(_move(api, seen, prompt, number))


async def _move(api: Api, seen: Seen, prompt: str, number: int) -> None:
    """One event. A request that fails is counted, and is no event that anybody missed."""
    label, version = marker(number)
    try:
        await api.ask("PUT", f"prompts/{prompt}/labels/{label}", {"version": version})
    except PerfError:
        seen.not_emitted.add(number)


async def _ask(rest: _Rest, seen: Seen, options: Namespace) -> None:
    seen.rest = await open_loop(rest.client, rest.requests, rate=options.rest_rate, seconds=options.duration)


@asynccontextmanager
async def _sampled(server: Server, seen: Seen) -> AsyncIterator[None]:
    async def sample() -> None:
        while True:
            seen.rss_mib.append(server.processes.rss_mib("web") or 0.0)
            await asyncio.sleep(_SAMPLE_S)

    task = asyncio.create_task(sample())
    try:
        yield
    finally:
        task.cancel()


async def _let_read(api: Api, crowd: Crowds, count: int) -> None:
    """Once the server has closed all that do not read, let them read why."""
    before = (await _counters(api))[_CLOSED_SLOW]
    for _ in range(int(_MAX_SLOW_S / _SAMPLE_S)):
        if (await _counters(api))[_CLOSED_SLOW] - before >= count:
            break
        await asyncio.sleep(_SAMPLE_S)
    await crowd.say("read again")


async def _counters(api: Api) -> dict[str, float]:
    """Two of the server's own metrics, 0 where they cannot be read."""
    answer = await api.client.ask(api.client.encode("GET", "/metrics"))
    values = dict.fromkeys((_CLOSED_SLOW, _DROPPED), 0.0)
    for line in answer.body.decode(errors="replace").splitlines():
        name, _, value = line.partition(" ")
        if name in values:
            values[name] = float(value)
    return values
