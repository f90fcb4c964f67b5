"""`perf all`: every requirement, one measurement after the other."""

import sys
from argparse import ArgumentParser, Namespace
from datetime import UTC, datetime
from time import perf_counter

from monitoring.perf.errors import PerfError
from monitoring.perf.measuring import origin
from monitoring.perf.registry import run_with
from monitoring.perf.report import Report
from monitoring.perf.server import Server

HELP = "every measurement, and a table of what was required"

MEASUREMENTS: tuple[tuple[str, list[str]], ...] = (
    ("http", []),
    ("http", ["--closed", "50"]),
    ("websocket", []),
    ("websocket", ["--rest-rate", "500", "--duration", "20"]),
    ("evaluation", []),
    ("evaluation", ["--vendor"]),
    ("cache", []),
    ("gateway", []),
    ("database", []),
    ("memory", []),
)
# The same with little load: to try things out, not to judge them.
QUICK = {
    "http": ["--duration", "5", "--step", "2"],
    "websocket": ["--connections", "500", "--duration", "5"],
    "evaluation": ["--repeats", "1"],
    "cache": ["--duration", "3"],
    "gateway": ["--duration", "2", "--calls", "2000"],
    "database": ["--duration", "1"],
    "memory": ["--requests", "5000", "--cells", "2000", "--visits", "200"],
}


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--quick", action="store_true", help="little load: to try it out, not to judge")


async def run(server: Server, options: Namespace) -> Report:
    """Each measurement with what the requirements say."""
    report = Report(command="all", started_at=datetime.now(UTC), origin=origin())
    started = perf_counter()
    for name, arguments in MEASUREMENTS:
        chosen = [*arguments, *(QUICK[name] if options.quick else [])]
        sys.stderr.write(f"perf {' '.join([name, *chosen])} …\n")
        report.parts.append(await _measured(server, name, chosen, " ".join([name, *arguments])))
    report.seconds = round(perf_counter() - started, 1)
    report.sent = f"{len(report.parts)} measurements{' with little load' if options.quick else ''}"
    return report


async def _measured(server: Server, name: str, arguments: list[str], command: str) -> Report:
    """What cannot be measured here must not cost what can."""
    try:
        return await run_with(server, name, arguments)
    except PerfError as error:
        return Report(command=command, problem=str(error))
