"""`manage.py perf X`: load generators against a running installation."""

import asyncio
import os
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

import msgspec
import uvloop
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from rich.console import Console

from monitoring.perf.comparing import compare
from monitoring.perf.errors import PerfError
from monitoring.perf.fresh import run_on_fresh
from monitoring.perf.printing import print_changes, print_report, print_summary
from monitoring.perf.registry import NAMES, generator
from monitoring.perf.report import Report
from monitoring.perf.server import Processes, Server, join_environment, joined_server

_WIDTH = 130  # of tables that go to a file


class Command(BaseCommand):
    help = (
        "Measures a running installation (the one of AUTOFORGE_VAR_DIR, or --url and --key). "
        "Ends with 1 when a requirement is missed or a figure is worse than --baseline beyond the noise."
    )
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        subparsers = parser.add_subparsers(dest="name", required=True, metavar="|".join((*NAMES, "all")))
        for name in (*NAMES, "all"):
            module = generator(name)
            subparser = subparsers.add_parser(name, help=module.HELP)
            _add_common(subparser)
            module.add_arguments(subparser)

    def handle(self, *args: Any, **options: Any) -> None:
        chosen = Namespace(**options)
        try:
            if chosen.fresh:
                raise SystemExit(run_on_fresh(os.environ.get("SERVER") or "uvicorn"))
            report = _measure(chosen)
        except PerfError as error:
            raise CommandError(str(error)) from error
        console = Console(width=None if sys.stdout.isatty() else _WIDTH)
        for part in report.parts or [report]:
            print_report(part, console)
        if report.parts:
            print_summary(report, console)
        if chosen.json:
            chosen.json.parent.mkdir(parents=True, exist_ok=True)
            chosen.json.write_bytes(msgspec.json.format(msgspec.json.encode(report)))
        _judge(report, chosen.baseline, console)


def _add_common(parser: ArgumentParser) -> None:
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report there")
    parser.add_argument("--baseline", type=Path, metavar="FILE", help="an earlier --json to compare with")
    parser.add_argument("--url", help="of a server elsewhere, with --key")
    parser.add_argument("--key", help="a secret of an API key, role owner, without a rate limit")
    fresh = "start an installation for this (SERVER=daphne or uvicorn), stop it after"
    parser.add_argument("--fresh", action="store_true", help=fresh)


def _measure(options: Namespace) -> Report:
    if options.url:
        if not options.key:
            raise PerfError("--url needs --key: `manage.py create_api_key --role owner --rate-limit 0`.")
        return _run(Server(options.url, options.key, Processes()), options)
    join_environment(settings.VAR_DIR)
    with joined_server(settings.VAR_DIR) as server:
        return _run(server, options)


def _run(server: Server, options: Namespace) -> Report:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(generator(options.name).run(server, options))


def _judge(report: Report, baseline: Path | None, console: Console) -> None:
    """Raises CommandError, which ends with 1, when something is missed or has become worse."""
    missed = report.missed().items()
    problems = [f"{name} is {figure.value:,g} {figure.unit}".rstrip() for name, figure in missed]
    problems += [
        f"{part.command} could not be measured: {part.problem}" for part in report.parts if part.problem
    ]
    if baseline:
        changes = compare(report, msgspec.json.decode(baseline.read_bytes(), type=Report))
        print_changes(changes, console)
        problems += [f"{change.name} regressed" for change in changes if change.is_regression]
    if problems:
        raise CommandError("\n".join(problems))
