"""`perf growth`: the same work at 1, 2 and 4 times the size, to see what grows with it and what does not."""

import itertools
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable
from time import perf_counter

from monitoring.perf import mix
from monitoring.perf.api import Api, api_of
from monitoring.perf.errors import PerfError
from monitoring.perf.measuring import measured
from monitoring.perf.registry import run_with
from monitoring.perf.report import Figure, Report
from monitoring.perf.runs import CellLoad, execute, new_cells
from monitoring.perf.server import Server

HELP = "cells, results, prompts and subscribers at 1, 2 and 4 times the number: how time and CPU grow"
_MODEL, _LATENCY_MS, _CONCURRENCY = "perf-simulated", 100.0, 100
_LAST_CLIENT = "event until the last client, median"


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--cells", type=int, default=1_000)
    parser.add_argument("--prompts", type=int, default=100)
    parser.add_argument("--subscribers", type=int, default=250, help="0: none")
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 2, 4], metavar="TIMES")
    parser.add_argument("--requests", type=int, default=200, help="of each kind of read, one at a time")


async def run(server: Server, options: Namespace) -> Report:
    """Each size in turn, all on one connection at a time: what is measured is the work, not the queue."""
    report = Report(
        command="growth",
        sent=f"{options.cells:,} cells, {options.prompts:,} prompts, {options.subscribers:,} subscribers,"
        f" each times {', '.join(map(str, options.steps))}",
    )
    async with api_of(server) as api:
        settings = {"latency_ms": _LATENCY_MS, "output": "echo"}
        await api.ensure_model(_MODEL, provider="simulated", model="simulated", settings=settings)
        warm_up = CellLoad(options.cells, _MODEL, _LATENCY_MS, _CONCURRENCY)
        await execute(api, server, await new_cells(api, warm_up))
        with measured(report, server):
            for step in options.steps:
                report.figures += await _cells(api, server, options.cells * step, options.requests)
                report.figures += await _prompts(api, options.prompts * step, options.requests)
                if options.subscribers:
                    report.figures += await _subscribers(server, options.subscribers * step)
    report.figures.sort(key=lambda figure: figure.name.partition(": ")[0])
    return report


async def _cells(api: Api, server: Server, cells: int, requests: int) -> list[Figure]:
    """A run of that many cells, and what reading it costs afterwards."""
    load = CellLoad(cells, _MODEL, _LATENCY_MS, _CONCURRENCY)
    outcome = await execute(api, server, await new_cells(api, load))
    results = f"runs/{outcome.run['id']}"
    times = {
        "report, first time": await _quick_ms(api, [f"{results}/report"], 1),
        "page of 20 results": await _quick_ms(api, [f"{results}/results?limit=20"], requests),
        "page of 20 results by latency": await _quick_ms(
            api, [f"{results}/results?limit=20&sort=-latency"], requests
        ),
        "export as CSV": await _quick_ms(api, [f"{results}/export?format=csv"], 3),
    }
    figures = [_figure("run", cells, "cells", outcome.wall_s, "s")]
    if outcome.worker_cpu_s:
        figures.append(_figure("worker CPU a cell", cells, "cells", outcome.cpu_ms_per_cell, "ms"))
    return figures + [_figure(what, cells, "results", value, "ms") for what, value in times.items()]


async def _prompts(api: Api, prompts: int, requests: int) -> list[Figure]:
    await mix.prepare(api, prompts)
    reads = [f"prompts/{mix.prompt_name(number)}?label=production" for number in range(prompts)]
    return [
        _figure("prompt by label", prompts, "prompts", await _quick_ms(api, reads, requests), "ms"),
        _figure(
            "page of 20 prompts",
            prompts,
            "prompts",
            await _quick_ms(api, ["prompts?limit=20"], requests),
            "ms",
        ),
    ]


async def _subscribers(server: Server, count: int) -> list[Figure]:
    arguments = ["--connections", str(count), "--duration", "5", "--events", "5", "--clients", "1"]
    heard = (await run_with(server, "websocket", arguments)).all_figures()
    return [_figure(_LAST_CLIENT, count, "subscribers", heard[_LAST_CLIENT].value, "ms")]


async def _quick_ms(api: Api, paths: Iterable[str], requests: int) -> float:
    """The 10th percentile of requests in turn: the work itself, where others share the machine."""
    times = []
    for path in itertools.islice(itertools.cycle(paths), requests):
        started = perf_counter()
        answer = await api.answer("GET", path)
        times.append((perf_counter() - started) * 1000)
        if answer.status != 200:
            raise PerfError(f"GET /api/v1/{path} was answered {answer.status}.")
    return sorted(times)[len(times) // 10]


def _figure(what: str, count: int, of: str, value: float, unit: str) -> Figure:
    return Figure(name=f"{what}: {count:,} {of}", value=round(value, 3), unit=unit, better="lower")
