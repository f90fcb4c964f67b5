"""`manage.py run_server`: everything in one process, for trying out and for small installations."""

from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

from autoforge.installation import introduction, prepare, write_environment
from autoforge.ports import port_number, refuse_used_port
from autoforge.processes import run_uvicorn
from evaluations import executor
from monitoring import installation
from monitoring.recorder import recorder


class Command(BaseCommand):
    help = "Serves web, WebSockets and runs in this one process; prepares the database first."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--port", type=port_number, default=8000)
        parser.add_argument("--host", default="127.0.0.1")

    def handle(self, *args: Any, **options: Any) -> None:
        refuse_used_port(options["host"], options["port"])
        self.stdout.write(introduction(prepare(), options["port"]))
        write_environment(options["port"])
        executor.start_looking()
        installation.watch("web")
        recorder.start()
        run_uvicorn(host=options["host"], port=options["port"])
        executor.stop()
        executor.wait_idle(settings.RUN_STOP_S + 2)
