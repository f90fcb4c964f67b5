"""`manage.py process web|worker|beat`: one process of an installation, as a supervisor starts it."""

import signal
import socket
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from autoforge import processes
from autoforge.local_services.processes import end_with_parent
from monitoring import installation
from monitoring.system import sampler


class Command(BaseCommand):
    help = "Runs one process until SIGTERM. `web` serves the listening socket that is its standard input."
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("kind", choices=["web", "worker", "beat"])
        parser.add_argument("--server", choices=["uvicorn", "daphne"], default="uvicorn")
        parser.add_argument("--name", default="worker", help="of a worker, unique on this machine")

    def handle(self, *args: Any, **options: Any) -> None:
        # A supervisor that is killed cannot stop us: the kernel does.
        if follow := end_with_parent(signal.SIGTERM):
            follow()
        sampler.start(options["kind"])
        installation.watch(options["kind"])
        match options["kind"]:
            case "web":
                _serve(options["server"])
            case "worker":
                processes.run_worker(options["name"])
            case _:
                processes.run_beat()


def _serve(server: str) -> None:
    listener = socket.socket(fileno=0)
    if server == "daphne":
        processes.run_daphne(listener)
    else:
        processes.run_uvicorn(listener=listener)
