"""`perf database`: what a query through the connection pool costs, alone and from several threads."""

import asyncio
import threading
from argparse import ArgumentParser, Namespace
from time import perf_counter

from django.db import connection, reset_queries

from autoforge.models import Project
from monitoring.perf.errors import PerfError
from monitoring.perf.measuring import measured
from monitoring.perf.recording import Recorder
from monitoring.perf.report import Figure, Report
from monitoring.perf.server import PROJECT, Server

HELP = "a query and the return of its connection to the pool, in µs, from this process"


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--duration", type=float, default=5.0, help="seconds of each load")
    parser.add_argument("--threads", type=int, default=8)


async def run(server: Server, options: Namespace) -> Report:
    """One thread, then `--threads`, each as fast as it can. Raises PerfError for a server elsewhere."""
    if not server.processes.groups:
        raise PerfError("`perf database` needs the installation's own database: it does not work with --url.")
    report = Report(
        command="database",
        sent=f"one row by its key and the connection's release, {connection.vendor},"
        f" 1 and {options.threads} threads, closed loop",
    )
    with measured(report, server):
        for threads in (1, options.threads):
            recorder = await asyncio.to_thread(_load, threads, options.duration)
            report.latencies += recorder.latencies(options.duration)
            report.figures += _figures(recorder, threads, options.duration)
    return report


def _load(threads: int, seconds: float) -> Recorder:
    recorder, lock = Recorder(seconds), threading.Lock()
    kind = f"{threads} thread{'s'[: threads > 1]}"
    started = perf_counter()

    def ask() -> None:
        samples: list[tuple[float, float]] = []
        while (begun := perf_counter()) - started < seconds:
            Project.objects.values_list("name", flat=True).get(name=PROJECT)
            connection.close()  # gives it back to the pool
            samples.append((begun - started, perf_counter() - begun))
        reset_queries()
        with lock:
            for at_s, latency_s in samples:
                recorder.add(kind, at_s, latency_s)

    workers = [threading.Thread(target=ask) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return recorder


def _figures(recorder: Recorder, threads: int, seconds: float) -> list[Figure]:
    name = f"query and release, {threads} thread{'s'[: threads > 1]}"
    median_us, noise_us = recorder.percentile_ms(50) * 1000, recorder.noise_ms(50) * 1000
    return [
        Figure(name=f"{name}, median", value=median_us, unit="µs", better="lower", noise=noise_us),
        Figure(
            name=f"{name}, rate",
            value=round(recorder.count / seconds),
            unit="queries/s",
            better="higher",
            noise=recorder.rate_noise(),
        ),
    ]
