"""Run a command beside local services: what `manage.py with_services` does."""

import argparse
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from types import FrameType

from autoforge.local_services.errors import ServiceError
from autoforge.local_services.launcher import local_services
from autoforge.local_services.processes import end_with_parent

FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
INTERRUPTED = 128 + signal.SIGINT


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`[--fresh] -- CMD …`"""
    parser.add_argument(
        "--fresh", action="store_true", help="start both services even if DATABASE_URL or REDIS_URL is set"
    )
    parser.add_argument("command", nargs="+", metavar="CMD", help="what to run")


def run_with_services(command: list[str], *, fresh: bool) -> int:
    """Run `command` with DATABASE_URL and REDIS_URL set; return its exit code as a shell would.

    A service whose variable is set already is used as it is, unless `fresh`.
    """
    missing = {name for name in ("DATABASE_URL", "REDIS_URL") if fresh or not os.environ.get(name)}
    try:
        with local_services(postgres="DATABASE_URL" in missing, redis="REDIS_URL" in missing) as urls:
            return run(command, os.environ | urls)
    except ServiceError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED


def run(command: list[str], environment: dict[str, str]) -> int:
    """Run `command`, pass on the signals we get, return its exit code as a shell would."""
    try:
        child = subprocess.Popen(
            command,
            env=environment,
            preexec_fn=end_with_parent(signal.SIGTERM),  # noqa: PLW1509  we have one thread
        )
    except OSError as error:
        sys.stderr.write(f"{command[0]}: {error.strerror}\n")
        return 127

    def forward(number: int, _frame: FrameType | None) -> None:
        if not (number == signal.SIGINT and is_in_foreground()):
            child.send_signal(number)

    for number in FORWARDED:
        signal.signal(number, forward)
    code = child.wait()
    return code if code >= 0 else 128 - code


def is_in_foreground() -> bool:
    """Whether Ctrl-C at our terminal reaches the command without us."""
    with suppress(OSError), Path("/dev/tty").open() as terminal:
        return os.tcgetpgrp(terminal.fileno()) == os.getpgrp()
    return False
