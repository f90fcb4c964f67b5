"""`perf memory`: does the installation grow while it works?"""

import asyncio
from argparse import ArgumentParser, Namespace
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from statistics import median

from monitoring.perf import mix
from monitoring.perf.api import Api, api_of
from monitoring.perf.errors import PerfError
from monitoring.perf.load import closed_loop
from monitoring.perf.measuring import measured
from monitoring.perf.report import Figure, Report
from monitoring.perf.runs import CellLoad, execute, new_cells
from monitoring.perf.server import Server
from monitoring.perf.visits import visit

HELP = "growth of resident memory over many requests, WebSockets and cells, after a warm-up"
_USERS = 20
_WARM_UP_SHARE = 0.2
_SAMPLE_S = 0.5
_MAX_GROWTH_MIB = 20.0
_MODEL = "perf-instant"


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--cells", type=int, default=20_000)
    parser.add_argument("--visits", type=int, default=1_000, help="WebSockets that come and go")


async def run(server: Server, options: Namespace) -> Report:
    """A fifth as warm-up, then the whole load. Raises PerfError when the processes are elsewhere."""
    if not server.processes.groups:
        raise PerfError("`perf memory` reads the processes' memory: it does not work with --url.")
    report = Report(
        command="memory",
        sent=f"{options.requests:,} requests of the REST mix by {_USERS} users, {options.cells:,} cells,"
        f" {options.visits:,} WebSockets that come and go",
    )
    async with api_of(server, connections=_USERS) as api:
        run_id = await mix.prepare(api)
        with measured(report, server):
            await _requests(api, run_id, int(options.requests * _WARM_UP_SHARE))
            async with growth(report, server, "web", f"{options.requests:,} requests"):
                await _requests(api, run_id, options.requests)
            await visit(server, max(int(options.visits * _WARM_UP_SHARE), 1))
            async with growth(report, server, "web", f"{options.visits:,} WebSockets"):
                await visit(server, options.visits)
            await _cells(api, server, max(int(options.cells * _WARM_UP_SHARE), 1))
            async with growth(report, server, "worker", f"{options.cells:,} cells"):
                await _cells(api, server, options.cells)
    return report


async def _requests(api: Api, run_id: str, count: int) -> None:
    load = await closed_loop(api.client, mix.mixed(api.client, run_id), users=_USERS, count=count)
    if load.recorder.error_count:
        raise PerfError(f"Requests failed under this load: {dict(load.recorder.errors)}.")


async def _cells(api: Api, server: Server, cells: int) -> None:
    await api.ensure_model(_MODEL, provider="simulated", model="simulated", settings={"output": "echo"})
    await execute(api, server, await new_cells(api, CellLoad(cells, _MODEL, 0.0, 100)))


@asynccontextmanager
async def growth(report: Report, server: Server, kind: str, load: str) -> AsyncIterator[None]:
    """Add how much the processes of `kind` grew: the median of the end over that of the beginning."""
    samples: list[float] = []
    pids = server.processes.pids(kind)

    async def sample() -> None:
        while True:
            samples.append(server.processes.rss_mib(kind) or 0.0)
            await asyncio.sleep(_SAMPLE_S)

    task = asyncio.create_task(sample())
    yield
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    samples.append(server.processes.rss_mib(kind) or 0.0)
    server.processes.refresh()
    replaced = len(pids - server.processes.pids(kind))
    tenth = max(len(samples) // 10, 1)
    first, last = median(samples[:tenth]), median(samples[-tenth:])
    report.figures += [
        Figure(
            name=f"{kind} RSS growth over {load}",
            value=round(last - first, 1),
            unit="MiB",
            better="lower",
            must=_MAX_GROWTH_MIB,
            aim=2.0,
        ),
        Figure(name=f"{kind} RSS after {load}", value=round(last, 1), unit="MiB"),
        # A process that was replaced starts small: the growth would say nothing.
        Figure(name=f"{kind} processes replaced over {load}", value=replaced, better="lower", must=0),
    ]
