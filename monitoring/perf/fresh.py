"""An installation started for one measurement: production shape, free port, empty database."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from django.conf import settings

from monitoring.perf.errors import PerfError

_STOP_TIMEOUT_S = 60


def run_on_fresh() -> int:
    """Repeat this command, without --fresh, against an installation that is started and stopped around it.

    Returns its exit code. Raises PerfError when the installation does not start.
    """
    (settings.VAR_DIR / "perf").mkdir(parents=True, exist_ok=True)
    var_dir = Path(tempfile.mkdtemp(prefix="installation-", dir=settings.VAR_DIR / "perf"))
    environment = {name: value for name, value in os.environ.items() if not _is_of_another(name)}
    environment |= {"AUTOFORGE_VAR_DIR": str(var_dir), "AUTOFORGE_ALLOW_PRIVATE_ENDPOINTS": "1"}
    server = _start(environment)
    try:
        _wait_until_ready(server)
        arguments = [argument for argument in sys.argv if argument != "--fresh"]
        command = [sys.executable, *arguments]
        return subprocess.run(command, env=environment, check=False).returncode
    finally:
        server.terminate()
        server.wait(_STOP_TIMEOUT_S)
        assert server.stdout is not None
        server.stdout.close()
        shutil.rmtree(var_dir, ignore_errors=True)


def _is_of_another(name: str) -> bool:
    """Whether a variable would lead to services or settings of another installation."""
    return name in ("DATABASE_URL", "REDIS_URL", "SECRET_KEY", "DEBUG", "ALLOWED_HOSTS", "PORT")


def _start(environment: dict[str, str]) -> subprocess.Popen[str]:
    command = [sys.executable, "manage.py", "serve", "--port", str(_free_port())]
    return subprocess.Popen(
        command, cwd=settings.BASE_DIR, env=environment, stdout=subprocess.PIPE, text=True
    )


def _wait_until_ready(server: subprocess.Popen[str]) -> None:
    assert server.stdout is not None
    for line in server.stdout:
        if line.startswith("ready "):
            return
    raise PerfError(f"`manage.py serve` ended with {server.wait()} before it was ready.")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
