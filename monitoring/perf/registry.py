"""The load generators: each is one module, named after its subcommand."""

from argparse import ArgumentParser, Namespace
from importlib import import_module
from typing import Protocol, cast

from monitoring.perf.report import Report
from monitoring.perf.server import Server

NAMES = ("http", "websocket", "evaluation", "cache", "gateway", "database", "memory", "crash", "growth")


class Generator(Protocol):
    """What such a module has."""

    HELP: str

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Its own options; each has a default that measures what the requirements say."""

    async def run(self, server: Server, options: Namespace) -> Report:
        """Measure. Raises PerfError when that cannot be done here."""


def generator(name: str) -> Generator:
    """The module behind a subcommand."""
    return cast(Generator, import_module(f"monitoring.perf.{name}"))


async def run_with(server: Server, name: str, arguments: list[str]) -> Report:
    """Run a generator as `manage.py perf NAME ARGUMENTS` would."""
    module, parser = generator(name), ArgumentParser(prog=f"perf {name}")
    module.add_arguments(parser)
    return await module.run(server, parser.parse_args(arguments))
