"""`manage.py serve`: the production shape on this machine, supervised; stops cleanly on Ctrl-C."""

import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from argparse import ArgumentParser, ArgumentTypeError
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from autoforge.local_services import ServiceError, local_services
from autoforge.local_services.processes import end_with_parent
from autoforge.ports import port_number, refuse_used_port
from autoforge.supervision import configuration

_READY_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 30.0
_MOST_PROCESSES = 64


class Command(BaseCommand):
    help = (
        "Web, workers and beat under a supervisor, on the configured PostgreSQL and Redis or on local ones."
    )
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--port", type=port_number, default=8000)
        parser.add_argument("--host", default="127.0.0.1")
        parser.add_argument("--web", type=_count, default=2, help="web processes")
        parser.add_argument("--workers", type=_count, default=1, help="worker processes")
        parser.add_argument("--server", choices=["uvicorn", "daphne"], default="uvicorn")

    def handle(self, *args: Any, **options: Any) -> None:
        refuse_used_port(options["host"], options["port"])
        signal.signal(signal.SIGTERM, _as_interrupt)
        with ExitStack() as stack:
            try:
                environment = os.environ | _services(stack)
                self._serve(environment, **options)
            except ServiceError as error:
                raise CommandError(str(error)) from error
            except KeyboardInterrupt:
                self.stdout.write("stopped")

    def _serve(self, environment: dict[str, str], **options: Any) -> None:
        logs = _fresh_logs()
        environment = (
            _production()
            | environment
            | {
                "AUTOFORGE_EXECUTOR": "celery",
                "AUTOFORGE_WEB_PROCESSES": str(options["web"]),
                "AUTOFORGE_WORKER_PROCESSES": str(options["workers"]),
                "PROMETHEUS_MULTIPROC_DIR": str(logs / "metrics"),
            }
        )
        _manage("prepare_installation", "--port", str(options["port"]), environment=environment)
        names = ("host", "port", "web", "workers", "server")
        config = logs / "supervisord.conf"
        config.write_text(configuration(logs=logs, **{name: options[name] for name in names}))
        supervisor = subprocess.Popen(
            [sys.executable, "-m", "supervisor.supervisord", "-c", str(config)],
            cwd=settings.BASE_DIR,
            env=environment,
            stdout=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C reaches us alone, and we stop it in order
            preexec_fn=end_with_parent(signal.SIGTERM),  # noqa: PLW1509  only this thread runs yet
        )
        try:
            _wait_until_ready(supervisor, options["port"], logs)
            self.stdout.write(f"ready http://127.0.0.1:{options['port']}")
            self.stdout.flush()
            code = supervisor.wait()
            raise CommandError(f"The supervisor ended with {code}: see {logs}/supervisord.log.")
        finally:
            _stop(supervisor)


def _services(stack: ExitStack) -> dict[str, str]:
    """Addresses of PostgreSQL and Redis, starting those that are not configured; data stays in var/."""
    missing = {"postgres": not settings.DATABASE_URL, "redis": not settings.REDIS_URL}
    known = {"DATABASE_URL": settings.DATABASE_URL, "REDIS_URL": settings.REDIS_URL}
    known = {name: url for name, url in known.items() if url}
    if not any(missing.values()):
        return known
    data = settings.VAR_DIR / "services"
    return known | stack.enter_context(local_services(**missing, data_dir=data, durable=True))


def _production() -> dict[str, str]:
    """What a deployment would configure; plain HTTP, because nothing here ends TLS."""
    return {
        "DEBUG": "0",
        "SECRET_KEY": settings.SECRET_KEY,
        "ALLOWED_HOSTS": "localhost,127.0.0.1,[::1]",
        "AUTOFORGE_HTTPS": "0",
    }


def _fresh_logs() -> Path:
    logs: Path = settings.VAR_DIR / "serve"
    shutil.rmtree(logs / "metrics", ignore_errors=True)
    (logs / "metrics").mkdir(parents=True)
    return logs


def _manage(*arguments: str, environment: dict[str, str]) -> None:
    command = [sys.executable, "manage.py", *arguments]
    if subprocess.run(command, cwd=settings.BASE_DIR, env=environment, check=False).returncode:
        raise CommandError(f"`manage.py {arguments[0]}` failed: its error stands above.")


def _wait_until_ready(supervisor: subprocess.Popen[bytes], port: int, logs: Path) -> None:
    deadline = time.monotonic() + _READY_TIMEOUT_S
    while time.monotonic() < deadline and supervisor.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health/ready", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    if (code := supervisor.poll()) is not None:
        raise CommandError(f"The supervisor ended with {code}: its error stands above, or in {logs}.")
    raise CommandError(f"Nothing answered on port {port} within {_READY_TIMEOUT_S:.0f} s: see {logs}.")


def _stop(supervisor: subprocess.Popen[bytes]) -> None:
    supervisor.terminate()
    try:
        supervisor.wait(_STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        supervisor.kill()


def _as_interrupt(signum: int, frame: Any) -> None:
    raise KeyboardInterrupt


def _count(text: str) -> int:
    if not (text.isdigit() and 1 <= int(text) <= _MOST_PROCESSES):
        raise ArgumentTypeError(f"how many processes: a number between 1 and {_MOST_PROCESSES}, not {text!r}")
    return int(text)
