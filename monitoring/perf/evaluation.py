"""`perf evaluation`: cells through the whole installation, then the same cells from the cache."""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from contextlib import ExitStack
from statistics import median, stdev

from monitoring.perf.api import Api, api_of
from monitoring.perf.measuring import measured
from monitoring.perf.report import Better, Figure, Report
from monitoring.perf.runs import CellLoad, Outcome, execute, new_cells
from monitoring.perf.server import Server
from monitoring.perf.vendor import vendor, vendor_stats

HELP = "cells × a model's latency at a concurrency: parallel efficiency, CPU per cell, cached cells/s"
_MIN_HIT_RATE = 0.8


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--cells", type=int, default=2000)
    parser.add_argument("--concurrency", type=int, default=100)
    parser.add_argument("--latency-ms", type=float, default=100.0, help="of the model")
    parser.add_argument("--repeats", type=int, default=3, help="times to measure: their spread is the noise")
    parser.add_argument(
        "--vendor",
        action="store_true",
        help="over real HTTP to a vendor on loopback; the server needs AUTOFORGE_ALLOW_PRIVATE_ENDPOINTS=1",
    )


async def run(server: Server, options: Namespace) -> Report:
    """Set the stage, run fresh cells and the same again, `--repeats` times."""
    report = Report(
        command="evaluation --vendor" if options.vendor else "evaluation",
        sent=f"{options.repeats} times {options.cells:,} cells × {options.latency_ms:g} ms"
        f" at concurrency {options.concurrency}, then the same cells again",
    )
    with ExitStack() as stack:
        url = stack.enter_context(vendor(options.latency_ms)) if options.vendor else ""
        async with api_of(server) as api:
            load = await _stage(api, options, url)
            await execute(api, server, await new_cells(api, load))  # warm-up
            with measured(report, server):
                pairs = [await _pair(api, server, load) for _ in range(options.repeats)]
        if url:
            stats = await vendor_stats(url)
            report.figures.append(_repeated_calls(stats.calls, options))
            report.notes.append(f"The vendor saw at most {stats.max_in_flight} calls at once.")
    report.figures += _fresh_figures([fresh for fresh, _ in pairs], load, is_vendor=options.vendor)
    report.figures += _cached_figures([cached for _, cached in pairs])
    own = ", ".join(f"{fresh.run['parallel_efficiency']:.3f}" for fresh, _ in pairs)
    report.notes.append(f"The runs' own parallel_efficiency, by the calls' real durations: {own}.")
    return report


async def _stage(api: Api, options: Namespace, vendor_url: str) -> CellLoad:
    if vendor_url:
        name = "perf-vendor"
        url = f"{vendor_url}/v1"
        await api.ensure_model(name, provider="openai", model="perf", base_url=url, api_key="perf")
    else:
        name = "perf-simulated"
        settings = {"latency_ms": options.latency_ms, "output": "echo"}
        await api.ensure_model(name, provider="simulated", model="simulated", settings=settings)
    return CellLoad(options.cells, name, options.latency_ms, options.concurrency)


async def _pair(api: Api, server: Server, load: CellLoad) -> tuple[Outcome, Outcome]:
    new = await new_cells(api, load)
    return await execute(api, server, new), await execute(api, server, new)


def _repeated_calls(calls: int, options: Namespace) -> Figure:
    """Beyond one a fresh cell, the warm-up's included."""
    expected = options.cells * (options.repeats + 1)
    return Figure(name="vendor calls beyond one a cell", value=calls - expected, better="lower", must=0)


def _fresh_figures(outcomes: list[Outcome], load: CellLoad, *, is_vendor: bool) -> list[Figure]:
    must, aim = (0.6, 0.9) if is_vendor else (0.85, 0.97)
    cpu_must, cpu_aim = (3.0, 1.0) if is_vendor else (None, None)
    figures = [
        _figure(
            "parallel efficiency",
            outcomes,
            lambda one: one.efficiency(load),
            better="higher",
            must=must,
            aim=aim,
        ),
        _figure("cells", outcomes, lambda one: one.cells_per_s, unit="cells/s", better="higher"),
        _figure("pick-up of a run", outcomes, lambda one: one.pick_up_s * 1000, unit="ms", better="lower"),
    ]
    if any(one.worker_cpu_s for one in outcomes):
        figures.append(
            _figure(
                "worker CPU per cell",
                outcomes,
                lambda one: one.cpu_ms_per_cell,
                unit="ms",
                better="lower",
                must=cpu_must,
                aim=cpu_aim,
            )
        )
    return figures


def _cached_figures(outcomes: list[Outcome]) -> list[Figure]:
    return [
        _figure(
            "hit rate of the same cells",
            outcomes,
            lambda one: one.run["cache_hits"] / one.run["total"],
            better="higher",
            must=_MIN_HIT_RATE,
            aim=1.0,
        ),
        _figure(
            "cached cells", outcomes, lambda one: one.cells_per_s, unit="cells/s", better="higher", aim=3000
        ),
    ]


def _figure(
    name: str,
    outcomes: list[Outcome],
    value: Callable[[Outcome], float],
    *,
    unit: str = "",
    better: Better,
    must: float | None = None,
    aim: float | None = None,
) -> Figure:
    """The median over the repeats, with their standard deviation as noise."""
    values = [value(one) for one in outcomes]
    noise = stdev(values) if len(values) > 1 else None
    return Figure(
        name=name, value=round(median(values), 4), unit=unit, better=better, noise=noise, must=must, aim=aim
    )
