"""`manage.py process web|worker|beat`: one process of an installation, as a supervisor starts it."""

import signal
import socket
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from autoforge import processes
from autoforge.checks import OURS
from autoforge.local_services.processes import end_with_parent
from autoforge.supervision import BACKLOG
from monitoring import installation
from monitoring.memory import guard
from monitoring.recorder import recorder
from monitoring.system import sampler


class Command(BaseCommand):
    help = (
        "Runs one process until SIGTERM. `web` serves the listening socket that is its standard input, so "
        "that several share it; or one of its own with --bind."
    )
    requires_system_checks = [OURS]

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("kind", choices=["web", "worker", "beat"])
        parser.add_argument("--server", choices=["uvicorn", "daphne"], default="uvicorn")
        parser.add_argument("--name", default="worker", help="of a worker, unique on this machine")
        parser.add_argument("--bind", metavar="HOST:PORT", help="of `web`, where nothing hands it a socket")

    def handle(self, *args: Any, **options: Any) -> None:
        listener = _listener(options["bind"]) if options["kind"] == "web" else None
        # A supervisor that is killed cannot stop us: the kernel does.
        if follow := end_with_parent(signal.SIGTERM):
            follow()
        sampler.start(options["kind"])
        installation.watch(options["kind"])
        guard.start(options["kind"], is_supervised=True)
        if listener:
            _serve(options["server"], listener)
        elif options["kind"] == "worker":
            processes.run_worker(options["name"])
        else:
            recorder.start()
            processes.run_beat()


def _listener(address: str | None) -> socket.socket:
    """A listening socket at `address`, else standard input. Raises CommandError."""
    if address is None:
        return _inherited()
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise CommandError(f"--bind is an address and a port like 0.0.0.0:8000, not {address!r}.")
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host.strip("[]"), int(port)), family=family, backlog=BACKLOG)
    except (OSError, OverflowError) as error:
        raise CommandError(f"Cannot listen at {address}: {error}.") from error


def _inherited() -> socket.socket:
    try:
        listener = socket.socket(fileno=0)
        if listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            return listener
    except OSError:
        pass
    raise CommandError("Standard input is no listening socket: start `process web` with --bind HOST:PORT.")


def _serve(server: str, listener: socket.socket) -> None:
    if server == "daphne":
        processes.run_daphne(listener)
    else:
        processes.run_uvicorn(listener=listener)
