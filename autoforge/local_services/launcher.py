"""Borrow services for as long as a block runs."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from autoforge.local_services.errors import ServiceError
from autoforge.local_services.messages import Order, Started
from autoforge.local_services.processes import remove

IMPORT_ROOT = Path(__file__).resolve().parents[2]
FAREWELL_TIMEOUT_S = 60


@contextmanager
def local_services(
    *,
    postgres: bool = True,
    redis: bool = True,
    data_dir: Path | None = None,
    durable: bool = False,
) -> Iterator[dict[str, str]]:
    """Run PostgreSQL and Valkey on free ports of 127.0.0.1; yield DATABASE_URL and REDIS_URL.

    With `data_dir` the data stays there and survives a power cut; without, it vanishes at the end
    and is only flushed to disk when `durable`. However this process ends, kill -9 included, nothing
    is left running. Raises ServiceError.
    """
    order = Order(
        launcher_pid=os.getpid(),
        postgres=postgres,
        redis=redis,
        data_dir=str(data_dir.resolve()) if data_dir else None,
        is_durable=durable or data_dir is not None,
    )
    with guardian_of(order) as started:
        yield started.urls


@contextmanager
def guardian_of(order: Order) -> Iterator[Started]:
    """A guardian that carries out `order` until the block ends; what it left if it was killed goes too."""
    guardian = summon(order)
    started = Started(urls={})
    try:
        started = wait_for_start(guardian)
        yield started
    finally:
        dismiss(guardian)
        if started.vanishing:
            remove(Path(started.vanishing))


def summon(order: Order) -> subprocess.Popen[str]:
    """Start a guardian in a session of its own, where the terminal's Ctrl-C does not reach it."""
    return subprocess.Popen(
        [sys.executable, "-m", "autoforge.local_services.guardian", order.encode()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=IMPORT_ROOT,
        start_new_session=True,
    )


def wait_for_start(guardian: subprocess.Popen[str]) -> Started:
    """Wait until the services answer."""
    assert guardian.stdout is not None
    line = guardian.stdout.readline()
    if not line:
        raise ServiceError("The process that starts the local services ended; see its error above.")
    started = Started.decode(line)
    if started.error:
        raise ServiceError(started.error)
    return started


def dismiss(guardian: subprocess.Popen[str]) -> None:
    """Let go of the guardian and wait until it has cleaned up."""
    assert guardian.stdin is not None and guardian.stdout is not None
    guardian.stdin.close()
    guardian.terminate()
    guardian.wait(FAREWELL_TIMEOUT_S)
    guardian.stdout.close()
