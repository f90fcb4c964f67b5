"""`perf http`: the REST mix at a fixed rate, the highest rate that stays fast, or a closed loop."""

from argparse import ArgumentParser, Namespace
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass

from monitoring.perf import mix
from monitoring.perf.api import Api, api_of
from monitoring.perf.load import Measurement, Prepared, closed_loop, open_loop
from monitoring.perf.measuring import measured, server_cpu
from monitoring.perf.recording import percentile_ms
from monitoring.perf.report import Figure, Report
from monitoring.perf.server import Server

HELP = "REST mix at a fixed rate, then the highest rate with P95 < 200 ms; or --closed N prompt readers"
MAX_P95_MS = 200.0
_WARM_UP_S = 3.0
_MAX_LATENESS_MS = 20.0
_SEARCH_PRECISION = 0.05


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--rate", type=float, default=1000.0, help="requests per second")
    parser.add_argument("--duration", type=float, help="seconds of load; default 60, closed loop 20")
    parser.add_argument("--connections", type=int, default=100)
    parser.add_argument("--prompts", type=int, default=mix.PROMPTS, help="different prompts")
    parser.add_argument("--closed", type=int, metavar="N", help="N readers of prompts, as fast as they can")
    parser.add_argument("--no-search", action="store_true", help="leave out the search for the highest rate")
    parser.add_argument("--step", type=float, default=5.0, help="seconds of each step of the search")


async def run(server: Server, options: Namespace) -> Report:
    """Set the stage, warm up, measure."""
    connections = options.closed or options.connections
    async with api_of(server, connections=connections) as api:
        run_id = await mix.prepare(api, options.prompts)
        await api.client.open_all()
        if options.closed:
            return await _closed(server, api, options)
        return await _open(server, api, run_id, options)


async def _closed(server: Server, api: Api, options: Namespace) -> Report:
    users, seconds = options.closed, options.duration or 20.0
    report = Report(
        command=f"http --closed {users}",
        sent=f"prompt reads by label over {options.prompts} prompts, {users} connections, closed loop",
    )
    requests = mix.reads(api.client, options.prompts)
    await closed_loop(api.client, requests, users=users, seconds=min(_WARM_UP_S, seconds))
    with measured(report, server):
        load = await closed_loop(api.client, requests, users=users, seconds=seconds)
    report.latencies = load.recorder.latencies(load.answering_s)
    noise = load.recorder.rate_noise()
    report.figures = [
        Figure(
            name="prompt reads, closed loop",
            value=round(load.per_s, 1),
            unit="req/s",
            better="higher",
            noise=noise,
            must=1500,
            aim=4000,
        ),
        _errors(load),
        *server_cpu(report, load.answered),
        _generator(load),
    ]
    report.notes.append("A closed loop promises no rate: its percentiles are service times.")
    return report


async def _open(server: Server, api: Api, run_id: str, options: Namespace) -> Report:
    seconds = options.duration or 60.0
    shares = ", ".join(f"{share:.0%} {kind}" for kind, share in mix.SHARES.items())
    report = Report(
        command="http",
        sent=f"REST mix ({shares}) at {options.rate:g} req/s, open loop, {options.connections} connections",
    )
    requests = mix.mixed(api.client, run_id, options.prompts)
    await open_loop(api.client, requests, rate=options.rate, seconds=min(_WARM_UP_S, seconds))
    before_mib = server.processes.rss_mib("web")
    with measured(report, server):
        load = await open_loop(api.client, requests, rate=options.rate, seconds=seconds)
    report.latencies = load.recorder.latencies(load.answering_s)
    report.figures = [*_figures(load, options.rate), *server_cpu(report, load.answered)]
    _add_memory(report, before_mib, server.processes.rss_mib("web"))
    _add_lateness(report, load)
    if not options.no_search:
        await _search(report, _Probe(api, requests, options.step), options.rate)
    return report


def _figures(load: Measurement, rate: float) -> list[Figure]:
    recorder = load.recorder
    return [
        Figure(
            name="P95",
            value=recorder.percentile_ms(95),
            unit="ms",
            better="lower",
            noise=recorder.noise_ms(95),
            must=MAX_P95_MS,
            aim=40,
        ),
        Figure(
            name="P99",
            value=recorder.percentile_ms(99),
            unit="ms",
            better="lower",
            noise=recorder.noise_ms(99),
            must=500,
            aim=100,
        ),
        Figure(
            name="rate",
            value=round(load.per_s, 1),
            unit="req/s",
            better="higher",
            noise=recorder.rate_noise(),
            must=round(rate * 0.99, 1),
        ),
        _errors(load),
        _generator(load),
    ]


def _errors(load: Measurement) -> Figure:
    return Figure(name="errors", value=load.recorder.error_count, better="lower", must=0)


def _generator(load: Measurement) -> Figure:
    return Figure(name="generator CPU", value=round(load.cpu_us, 1), unit="µs/request")


def _add_memory(report: Report, before_mib: float | None, after_mib: float | None) -> None:
    if before_mib is not None and after_mib is not None:
        report.figures.append(Figure(name="web RSS before", value=round(before_mib, 1), unit="MiB"))
        report.figures.append(Figure(name="web RSS after", value=round(after_mib, 1), unit="MiB"))


def _add_lateness(report: Report, load: Measurement) -> None:
    late_ms = percentile_ms(load.lateness, 99)
    report.figures.append(Figure(name="generator lateness P99", value=late_ms, unit="ms"))
    if late_ms > _MAX_LATENESS_MS:
        report.notes.append(
            f"The generator itself was late (P99 {late_ms:.0f} ms): the latencies above include that."
        )


@dataclass
class _Probe:
    """Short loads at one rate after the other."""

    api: Api
    requests: Iterator[Prepared]
    seconds: float

    async def holds(self, rate: float) -> bool:
        """Whether P95 stays below the bound, without errors and without falling a second behind."""
        load = await open_loop(
            self.api.client, self.requests, rate=rate, seconds=self.seconds, max_open=max(int(rate), 100)
        )
        recorder = load.recorder
        return not load.overloaded and not recorder.error_count and recorder.percentile_ms(95) < MAX_P95_MS


async def _search(report: Report, probe: _Probe, rate: float) -> None:
    best, steps = await highest(probe.holds, rate)
    report.figures.append(
        Figure(
            name="highest rate with P95 < 200 ms",
            value=round(best),
            unit="req/s",
            better="higher",
            noise=best * _SEARCH_PRECISION,
            must=1000,
            aim=2500,
        )
    )
    tried = ", ".join(f"{tested:.0f} {'held' if held else 'too slow'}" for tested, held in steps)
    report.notes.append(f"Search in steps of {probe.seconds:g} s: {tried}.")


async def highest(
    holds: Callable[[float], Awaitable[bool]], rate: float
) -> tuple[float, list[tuple[float, bool]]]:
    """The highest rate that holds, to 5 %, and what was tried; 0 when not even one a second does.

    Doubles or halves from `rate` to bracket it, then bisects.
    """
    steps: list[tuple[float, bool]] = []

    async def tried(tested: float) -> bool:
        steps.append((tested, await holds(tested)))
        return steps[-1][1]

    low, high = 0.0, rate
    while await tried(high):
        low, high = high, high * 2
    while not low and high > 1:
        if await tried(high / 2):
            low = high / 2
        else:
            high /= 2
    while low and high - low > low * _SEARCH_PRECISION:
        middle = (low + high) / 2
        low, high = (middle, high) if await tried(middle) else (low, middle)
    return low, steps
