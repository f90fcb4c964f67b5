"""Where services keep their files: a directory that vanishes, or one that stays."""

import fcntl
import secrets
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from autoforge.local_services.errors import ServiceError
from autoforge.local_services.processes import give, is_reachable, remove, unprivileged

PREFIX = "autoforge-services-"
LOCK_TIMEOUT_S = 30


@contextmanager
def temporary_home() -> Iterator[Path]:
    """A new directory that PostgreSQL's account can enter, removed at the end."""
    home = Path(tempfile.mkdtemp(prefix=PREFIX, dir=reachable_temporary_root()))
    try:
        home.chmod(0o711)
        yield home
    finally:
        remove(home)


@contextmanager
def kept_home(directory: Path) -> Iterator[Path]:
    """`directory`, ours alone until the end. Raises ServiceError when another launcher keeps it."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "lock").open("w") as lock:
        acquire(lock, directory)
        yield directory


def acquire(lock: IO[str], directory: Path) -> None:
    """Wait for the lock as long as a predecessor may need to shut down."""
    deadline = time.monotonic() + LOCK_TIMEOUT_S
    while True:
        try:
            return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise ServiceError(f"Services already run in {directory}: stop them first.") from None
        time.sleep(0.1)


def postgres_home(base: Path) -> Path:
    """A directory in `base` that PostgreSQL's account owns.

    Below a closed directory such as root's own it is a link to one in /var/tmp, because every
    directory on the way would have to be opened otherwise.
    """
    account, home = unprivileged(), base / "postgres"
    if home.is_dir():
        return home.resolve()
    if is_reachable(base, account):
        home.mkdir(mode=0o700)
    else:
        home.unlink(missing_ok=True)
        home.symlink_to(tempfile.mkdtemp(prefix=PREFIX, dir="/var/tmp"))
    give(home.resolve(), account)
    return home.resolve()


def password_in(base: Path) -> str:
    """The password of the services in `base`, the same at every start."""
    file = base / "password"
    if not file.exists():
        file.touch(mode=0o600)
        file.write_text(secrets.token_urlsafe(24))
    return file.read_text()


def reachable_temporary_root() -> Path:
    """TMPDIR, or /tmp when TMPDIR is closed to PostgreSQL's account."""
    chosen = Path(tempfile.gettempdir())
    open_to_all = Path("/tmp")  # noqa: S108  only a parent of what mkdtemp makes
    return chosen if is_reachable(chosen, unprivileged()) else open_to_all
