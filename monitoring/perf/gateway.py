"""`perf gateway`: completions through `/v1/`, held against the same vendor asked directly."""

import itertools
import uuid
from argparse import ArgumentParser, Namespace
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Literal

from monitoring.perf.api import Api, api_of
from monitoring.perf.client import Client
from monitoring.perf.errors import PerfError
from monitoring.perf.load import Measurement, Prepared, closed_loop, open_loop
from monitoring.perf.measuring import measured, server_cpu
from monitoring.perf.memory import growth
from monitoring.perf.recording import percentile_ms
from monitoring.perf.report import Figure, Report
from monitoring.perf.server import Server
from monitoring.perf.vendor import vendor, vendor_stats

HELP = "completions through /v1: own overhead, first token, cached answers, memory"
_PATH = "/v1/chat/completions"
_CONNECTIONS = 100
_WARM_UP_S = 1.0
_CONTROL_S = 3.0
_MAX_OVERHEAD_MS, _AIM_OVERHEAD_MS = 20.0, 5.0
_MAX_FIRST_TOKEN_MS = 5.0
_WARM_UP_SHARE = 0.2

Kind = Literal["whole", "stream"]
KINDS: tuple[Kind, ...] = ("whole", "stream")


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--rate", type=float, default=200.0, help="requests per second that must hold")
    parser.add_argument("--fast-rate", type=float, default=500.0, help="requests per second aimed at")
    parser.add_argument("--latency-ms", type=float, nargs="+", default=[0.0, 50.0], help="of the vendor")
    parser.add_argument("--duration", type=float, default=10.0, help="seconds of each load")
    parser.add_argument("--questions", type=int, default=200, help="different cached completions")
    parser.add_argument("--users", type=int, default=50, help="of the closed loops")
    parser.add_argument("--calls", type=int, default=50_000, help="to watch the memory over; 0: do not")


@dataclass(frozen=True)
class _Stage:
    """An endpoint of the installation and, directly, the vendor behind it."""

    api: Api
    server: Server
    direct: Client
    url: str
    model: str
    latency_ms: float

    def requests(self, kind: Kind, label: str, *, directly: bool = False) -> Iterator[Prepared]:
        """Questions that nobody has asked before."""
        client, batch = self.direct if directly else self.api.client, uuid.uuid4().hex
        expect = b"data: [DONE]" if kind == "stream" else b'"an answer"'
        for number in itertools.count():
            message = {"role": "user", "content": f"question {number} of {batch}"}
            body = {"model": self.model, "messages": [message], "stream": kind == "stream"}
            yield Prepared(label, client.encode("POST", _PATH, body), expect, kind == "stream")


async def run(server: Server, options: Namespace) -> Report:
    """Each kind of call at each latency and rate, then cached answers and the memory."""
    latencies = " and ".join(f"{latency_ms:g}" for latency_ms in options.latency_ms)
    report = Report(
        command="gateway",
        sent=f"completions, whole and streamed, to a vendor of {latencies} ms at {options.rate:g}"
        f" and {options.fast_rate:g} req/s, open loop; then cached ones by {options.users} users",
    )
    async with api_of(server, connections=_CONNECTIONS) as api:
        with measured(report, server):
            for latency_ms in options.latency_ms:
                async with _staged(server, api, latency_ms) as stage:
                    for kind, rate in itertools.product(KINDS, (options.rate, options.fast_rate)):
                        await _overhead(report, stage, kind, rate, options)
            async with _staged(server, api, 0.0) as stage:
                await _cached(report, stage, options)
                if options.calls:
                    await _memory(report, stage, options)
    report.notes.append(
        "Overhead is a percentile through the gateway minus the median of the same load on the vendor itself."
    )
    return report


@asynccontextmanager
async def _staged(server: Server, api: Api, latency_ms: float) -> AsyncIterator[_Stage]:
    model = f"perf-gateway-{latency_ms:g}"
    with vendor(latency_ms) as url:
        await api.ensure_model(model, provider="openai", model="perf", base_url=f"{url}/v1", api_key="perf")
        async with Client(url, connections=_CONNECTIONS) as direct:
            await direct.open_all()
            await api.client.open_all()
            yield _Stage(api, server, direct, url, model, latency_ms)


async def _overhead(report: Report, stage: _Stage, kind: Kind, rate: float, options: Namespace) -> None:
    label = f"{kind}, {stage.latency_ms:g} ms, {rate:g}/s"
    seconds, client = options.duration, stage.api.client
    control = await open_loop(
        stage.direct,
        stage.requests(kind, f"{label}, direct", directly=True),
        rate=rate,
        seconds=min(_CONTROL_S, seconds),
    )
    requests = stage.requests(kind, label)
    await open_loop(client, requests, rate=rate, seconds=min(_WARM_UP_S, seconds))
    with measured(part := Report(command=label), stage.server):
        load = await open_loop(client, requests, rate=rate, seconds=seconds)
    for one in (control, load):
        report.latencies += one.recorder.latencies(one.answering_s)
    must = _MAX_OVERHEAD_MS if rate == options.rate else None
    report.figures += _overhead_figures(label, load, control, must)
    if kind == "stream":
        report.figures += _first_token_figures(label, load, control, must and _MAX_FIRST_TOKEN_MS)
    report.figures += _bookkeeping(label, part, load, must=None if must is None else 0)


def _overhead_figures(
    label: str, load: Measurement, control: Measurement, must: float | None
) -> list[Figure]:
    """Over the vendor's median: what of the vendor's own spread is in a high percentile counts as ours."""
    base_ms = control.recorder.percentile_ms(50)
    p50_ms, p95_ms = (load.recorder.percentile_ms(percent) - base_ms for percent in (50, 95))
    noise = load.recorder.noise_ms(95)
    return [
        Figure(name=f"overhead P50, {label}", value=round(p50_ms, 3), unit="ms", better="lower"),
        Figure(
            name=f"overhead P95, {label}",
            value=round(p95_ms, 3),
            unit="ms",
            better="lower",
            noise=noise,
            must=must,
            aim=_AIM_OVERHEAD_MS,
        ),
    ]


def _first_token_figures(
    label: str, load: Measurement, control: Measurement, must: float | None
) -> list[Figure]:
    base_ms = percentile_ms(control.first, 50)
    values = {percent: percentile_ms(load.first, percent) - base_ms for percent in (50, 95)}
    return [
        Figure(
            name=f"first-token delay P{percent}, {label}",
            value=round(value, 3),
            unit="ms",
            better="lower",
            must=must if percent == 50 else None,
            aim=_MAX_FIRST_TOKEN_MS,
        )
        for percent, value in values.items()
    ]


async def _cached(report: Report, stage: _Stage, options: Namespace) -> None:
    """Questions that were asked once; an answer by the vendor is a failure."""
    client, label = stage.api.client, "cached, closed loop"
    questions = list(itertools.islice(stage.requests("whole", label), options.questions))
    for question in questions:
        await client.ask(question.data)
    asked = (await vendor_stats(stage.url)).calls
    known, users = itertools.cycle(questions), options.users
    await closed_loop(client, known, users=users, seconds=min(_WARM_UP_S, options.duration))
    with measured(part := Report(command=label), stage.server):
        load = await closed_loop(client, known, users=users, seconds=options.duration)
    again = (await vendor_stats(stage.url)).calls - asked
    report.latencies += load.recorder.latencies(load.answering_s)
    report.figures += [
        Figure(
            name="cached answers, closed loop",
            value=round(load.per_s, 1),
            unit="req/s",
            better="higher",
            noise=load.recorder.rate_noise(),
            must=1000,
        ),
        Figure(name="vendor calls for cached answers", value=again, better="lower", must=0),
        *_bookkeeping(label, part, load, must=0),
    ]


async def _memory(report: Report, stage: _Stage, options: Namespace) -> None:
    if not stage.server.processes.groups:
        report.notes.append("The memory of an installation elsewhere cannot be read.")
        return
    await _calls(stage, options, int(options.calls * _WARM_UP_SHARE))
    async with growth(report, stage.server, "web", f"{options.calls:,} gateway calls"):
        await _calls(stage, options, options.calls)


async def _calls(stage: _Stage, options: Namespace, count: int) -> None:
    """Whole and streamed ones in turns."""
    pairs = zip(*(stage.requests(kind, kind) for kind in KINDS), strict=True)
    requests = itertools.chain.from_iterable(pairs)
    load = await closed_loop(stage.api.client, requests, users=options.users, count=count)
    if load.recorder.error_count:
        raise PerfError(f"Calls failed under this load: {dict(load.recorder.errors)}.")


def _bookkeeping(label: str, part: Report, load: Measurement, *, must: float | None) -> list[Figure]:
    figures = server_cpu(part, load.answered)
    figures.append(Figure(name="errors", value=load.recorder.error_count, better="lower", must=must))
    for figure in figures:
        figure.name = f"{figure.name}, {label}"
    return figures
