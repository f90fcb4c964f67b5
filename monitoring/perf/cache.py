"""`perf cache`: completions that were asked before, through the REST API."""

import itertools
import uuid
from argparse import ArgumentParser, Namespace

from monitoring.perf.api import Api, api_of
from monitoring.perf.load import Prepared, open_loop
from monitoring.perf.measuring import measured, server_cpu
from monitoring.perf.report import Figure, Report
from monitoring.perf.server import Server

HELP = "completions that were asked before: hit rate and latency at a fixed rate"
_MODEL = "perf-cached"
_LATENCY_MS = 20.0


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--questions", type=int, default=200, help="different completions")
    parser.add_argument("--rate", type=float, default=200.0, help="requests per second")
    parser.add_argument("--duration", type=float, default=15.0, help="seconds of load")


async def run(server: Server, options: Namespace) -> Report:
    """Ask every question once, then again and again: an answer that is no hit is an error."""
    report = Report(
        command="cache",
        sent=f"completions over {options.questions} known questions at {options.rate:g} req/s, open loop",
    )
    async with api_of(server, connections=64) as api:
        settings = {"latency_ms": _LATENCY_MS, "output": "echo"}
        await api.ensure_model(_MODEL, provider="simulated", model="simulated", settings=settings)
        questions = _questions(api, options.questions)
        for question in questions:
            await api.client.ask(question.data)
        await api.client.open_all()
        with measured(report, server):
            load = await open_loop(
                api.client, itertools.cycle(questions), rate=options.rate, seconds=options.duration
            )
    recorder = load.recorder
    report.latencies = recorder.latencies(load.answering_s)
    hits = 1 - recorder.error_count / max(recorder.count, 1)
    report.figures = [
        Figure(name="hit rate", value=round(hits, 4), better="higher", must=0.8, aim=1.0),
        Figure(
            name="P95 of a hit",
            value=recorder.percentile_ms(95),
            unit="ms",
            better="lower",
            noise=recorder.noise_ms(95),
        ),
        *server_cpu(report, load.answered),
        Figure(name="generator CPU", value=round(load.cpu_us, 1), unit="µs/request"),
    ]
    return report


def _questions(api: Api, count: int) -> list[Prepared]:
    """Completions that nobody asked before this measurement."""
    batch = uuid.uuid4().hex
    bodies = (
        {"model": _MODEL, "messages": [{"role": "user", "content": f"question {number} of {batch}"}]}
        for number in range(count)
    )
    return [
        Prepared("hit", api.client.encode("POST", "/api/v1/completions", body), expect=b'"cached":true')
        for body in bodies
    ]
