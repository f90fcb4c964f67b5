"""Names of workers, from which a worker of the same machine can tell whether they are still there."""

import hashlib
import os
import secrets
import socket
from contextlib import suppress
from functools import cache
from pathlib import Path

# What makes a process id mean one process: this boot, and this namespace (a container has its own).
_BOOT_ID, _PID_NAMESPACE = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")


def new_worker_name() -> str:
    """`host~scope~pid~token`, unique among all processes; at most 100 characters."""
    return f"{socket.gethostname()[:40]}~{_scope()}~{os.getpid()}~{secrets.token_hex(4)}"


def has_died(name: str) -> bool:
    """Whether the worker was a process of this machine and is gone. False where only its silence tells."""
    host, scope, pid = [*name.split("~"), "", ""][:3]
    if not scope or (host, scope) != (socket.gethostname()[:40], _scope()) or not pid.isdigit():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


@cache
def _scope() -> str:
    """Where process ids mean the same as here; empty where that cannot be known (not Linux)."""
    with suppress(OSError):
        scope = _BOOT_ID.read_text() + str(_PID_NAMESPACE.readlink())
        return hashlib.sha256(scope.encode()).hexdigest()[:8]
    return ""
