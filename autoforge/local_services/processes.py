"""Who a server runs as, how it ends with its parent, and what it may leave behind: nothing."""

import ctypes
import os
import pwd
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from signal import Signals
from typing import TypedDict

from autoforge.local_services.errors import ServiceError

PR_SET_PDEATHSIG = 1
REMOVAL_TIMEOUT_S = 10


class Account(TypedDict, total=False):
    """The arguments of `subprocess.Popen` that choose a user; empty means ourselves."""

    user: int
    group: int
    extra_groups: list[int]


def unprivileged() -> Account:
    """`nobody` when we are root, which PostgreSQL refuses to run as; else ourselves."""
    if os.geteuid() != 0:
        return {}
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:
        raise ServiceError(
            "PostgreSQL does not run as root and there is no user `nobody`: "
            "start as an ordinary user, or set DATABASE_URL."
        ) from None
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def is_reachable(directory: Path, account: Account) -> bool:
    """Whether `account` may enter `directory`, asked of the kernel by trying."""
    command = ["/bin/sh", "-c", 'cd "$1"', "sh", str(directory)]
    try:
        entered = subprocess.run(command, check=False, cwd="/", stderr=subprocess.DEVNULL, **account)
    except (OSError, subprocess.SubprocessError) as error:
        raise ServiceError(f"Cannot start a process as another user: {error}.") from error
    return entered.returncode == 0


def give(path: Path, account: Account) -> None:
    """Make `account` the owner of `path` and of everything in it."""
    if not account:
        return
    for entry in (path, *path.rglob("*")):
        os.chown(entry, account["user"], account["group"], follow_symlinks=False)


def end_with_parent(signal: Signals) -> Callable[[], None] | None:
    """A `preexec_fn`: the kernel sends `signal` when the parent ends, kill -9 included.

    Linux only, see prctl(2); elsewhere None. The child must be started from the main thread.
    """
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    return lambda: prctl(PR_SET_PDEATHSIG, int(signal), 0, 0, 0)


def remove(directory: Path) -> None:
    """Remove a tree in which a dying process may still write a last file."""
    deadline = time.monotonic() + REMOVAL_TIMEOUT_S
    while directory.exists() and time.monotonic() < deadline:
        shutil.rmtree(directory, ignore_errors=True)
        if directory.exists():
            time.sleep(0.05)
