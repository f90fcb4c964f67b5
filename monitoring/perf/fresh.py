"""An installation started for one measurement: production shape, free port, empty database."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from django.conf import settings

from monitoring.perf.errors import PerfError

_STOP_TIMEOUT_S = 60


def run_on_fresh(server: str) -> int:
    """Repeat this command, without --fresh, against an installation that is started and stopped around it.

    `server` is uvicorn or daphne. Returns the exit code. Raises PerfError when nothing can be started.
    """
    (settings.VAR_DIR / "perf").mkdir(parents=True, exist_ok=True)
    var_dir = Path(tempfile.mkdtemp(prefix="installation-", dir=settings.VAR_DIR / "perf"))
    environment = {name: value for name, value in os.environ.items() if not _is_of_another(name)}
    environment |= {"AUTOFORGE_VAR_DIR": str(var_dir), "AUTOFORGE_ALLOW_PRIVATE_ENDPOINTS": "1"}
    with _installation(environment, server):
        arguments = [argument for argument in sys.argv if argument != "--fresh"]
        code = subprocess.run([sys.executable, *arguments], env=environment, check=False).returncode
    # Reached only when it could be started: its logs say why when it could not.
    shutil.rmtree(var_dir, ignore_errors=True)
    return code


@contextmanager
def _installation(environment: dict[str, str], server_name: str) -> Iterator[None]:
    command = [sys.executable, "manage.py", "serve", "--port", str(_free_port()), "--server", server_name]
    server = subprocess.Popen(
        command, cwd=settings.BASE_DIR, env=environment, stdout=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    try:
        if not any(line.startswith("ready ") for line in server.stdout):
            logs = environment["AUTOFORGE_VAR_DIR"]
            raise PerfError(f"`manage.py serve` ended with {server.wait()} before it was ready: see {logs}.")
        yield
    finally:
        server.terminate()
        server.wait(_STOP_TIMEOUT_S)
        server.stdout.close()


def _is_of_another(name: str) -> bool:
    """Whether a variable would lead to services or settings of another installation."""
    return name in ("DATABASE_URL", "REDIS_URL", "SECRET_KEY", "DEBUG", "ALLOWED_HOSTS", "PORT")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
