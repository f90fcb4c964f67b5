"""The installation under load: its address and key, and its processes when they run on this machine."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path

import psutil
from django.conf import settings
from django.utils import timezone

from autoforge.models import Role
from autoforge.services import create_api_key, get_or_create_project, revoke_api_key
from monitoring.perf.errors import PerfError

PROJECT, OTHER_PROJECT = "perf", "perf-other"
_KEY_LIFE = timedelta(hours=6)
# In the order in which a command line is looked at: `manage.py process web`.
_KINDS = ("web", "worker", "beat")


@dataclass
class Processes:
    """Processes of the installation by what they do: web, worker, beat, services. Empty from afar."""

    find: Callable[[], dict[str, list[psutil.Process]]] = dict
    groups: dict[str, list[psutil.Process]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.refresh()

    def refresh(self) -> None:
        """Look again: services fork, and a supervisor replaces what has ended. Costs some milliseconds."""
        self.groups = self.find()

    def pids(self, kind: str) -> set[int]:
        return {process.pid for process in self.groups.get(kind, [])}

    def rss_mib(self, kind: str) -> float | None:
        """Resident memory of all of a kind; None when there is none here."""
        return sum(self.each_rss_mib(kind)) or None

    def each_rss_mib(self, kind: str) -> list[float]:
        """Resident memory of each of a kind."""
        living = (process for process in self.groups.get(kind, []) if process.is_running())
        return [process.memory_info().rss / 2**20 for process in living]

    @property
    def web_server(self) -> str:
        """`daphne` or `uvicorn`; empty from afar."""
        words = [word for process in self.groups.get("web", []) for word in process.cmdline()]
        return ("daphne" if "daphne" in words else "uvicorn") if words else ""

    def open_files(self, kind: str) -> int | None:
        """How many files all of a kind may have open together; None where that cannot be known."""
        if not self.groups.get(kind) or not hasattr(psutil, "RLIMIT_NOFILE"):
            return None
        return sum(int(process.rlimit(psutil.RLIMIT_NOFILE)[0]) for process in self.groups[kind])

    def cpu_s(self) -> dict[tuple[str, int], float]:
        """CPU time so far, by kind and process. One process that does everything is `web`."""
        used: dict[int, tuple[str, float]] = {}
        for kind, processes in self.groups.items():
            for process in processes:
                used.setdefault(process.pid, (kind, _cpu_s(process)))
        return {(kind, pid): seconds for pid, (kind, seconds) in used.items()}

    def worker_cpu_s(self) -> float:
        """CPU time so far of the processes that execute runs."""
        return sum(_cpu_s(process) for process in self.groups.get("worker", []))


@dataclass(frozen=True)
class Server:
    """Where to send requests, and as whom. `other_key` is of another project, "" where we cannot make one."""

    url: str
    key: str
    processes: Processes
    other_key: str = ""


def join_environment(var_dir: Path) -> None:
    """Become a process of the installation that `var_dir`/serve.env describes, if we are not one yet.

    Replaces this process by the same command with that environment. Raises PerfError without such a file.
    """
    path = var_dir / "serve.env"
    if not path.exists():
        raise PerfError(f"No installation runs from {var_dir}: start `make serve`, or give --url and --key.")
    wanted = dict(line.split("=", 1) for line in path.read_text().splitlines() if "=" in line)
    # As `serve` sets its processes: debugging would keep every query in memory.
    wanted |= {"DEBUG": "0", "SECRET_KEY": settings.SECRET_KEY, "ALLOWED_HOSTS": "localhost,127.0.0.1"}
    if any(os.environ.get(name, "") != value for name, value in wanted.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | wanted)  # noqa: S606  ourselves


@contextmanager
def joined_server(var_dir: Path) -> Iterator[Server]:
    """The installation that we joined; its keys, of `perf` and `perf-other`, end with the block."""
    port = int(os.environ["PORT"])
    with _key(PROJECT) as key, _key(OTHER_PROJECT) as other_key:
        processes = Processes(partial(find_processes, port, var_dir))
        yield Server(f"http://127.0.0.1:{port}", key, processes, other_key)


@contextmanager
def _key(project: str) -> Iterator[str]:
    key = create_api_key(
        get_or_create_project(project),
        name="manage.py perf",
        role=Role.OWNER,
        expires_at=timezone.now() + _KEY_LIFE,
        rate_limit_per_min=0,
    )
    try:
        yield key.secret
    finally:
        revoke_api_key(key.key)


def find_processes(port: int, var_dir: Path) -> dict[str, list[psutil.Process]]:
    """What serves `port`: under a supervisor by its pid file, else the one process that listens."""
    if supervisor := _supervisor(var_dir / "serve" / "supervisord.pid"):
        return _supervised(supervisor)
    listening = [
        connection.pid
        for connection in psutil.net_connections(kind="tcp")
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port and connection.pid
    ]
    alone = [psutil.Process(pid) for pid in dict.fromkeys(listening)]
    return {"web": alone, "worker": alone}


def _supervisor(pid_file: Path) -> psutil.Process | None:
    try:
        process = psutil.Process(int(pid_file.read_text()))
        return process if "supervisor" in " ".join(process.cmdline()) else None
    except (OSError, ValueError, psutil.Error):
        return None


def _supervised(supervisor: psutil.Process) -> dict[str, list[psutil.Process]]:
    groups: dict[str, list[psutil.Process]] = {}
    for process in supervisor.children():
        words = process.cmdline()
        kind = next((kind for kind in _KINDS if kind in words), None)
        if kind:
            groups.setdefault(kind, []).append(process)
    if serve := supervisor.parent():
        own = {supervisor.pid, *(process.pid for process in supervisor.children(recursive=True))}
        groups["services"] = [child for child in serve.children(recursive=True) if child.pid not in own]
    return groups


def _cpu_s(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system)
