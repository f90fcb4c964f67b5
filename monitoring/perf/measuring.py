"""A report around a measurement: where it came from, and whose CPU time it took."""

import os
import platform
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from time import perf_counter, process_time

import psutil

from monitoring.perf.report import Figure, Origin, Report
from monitoring.perf.server import Server

_VERSIONS = ("Django", "uvicorn", "uvloop", "psycopg", "redis", "channels")
_BUSY_LOAD = 0.5


@contextmanager
def measured(report: Report, server: Server) -> Iterator[None]:
    """Fill in when, from where, how long, and CPU cores used by the installation, by us and by others."""
    report.started_at, report.origin = datetime.now(UTC), origin()
    if report.origin.load_average > _BUSY_LOAD:
        report.notes.append(
            f"The machine was busy before the load began: load average {report.origin.load_average:.1f}."
        )
    server.processes.refresh()
    started, before, before_self = perf_counter(), server.processes.cpu_s(), _own_and_all()
    yield
    report.seconds = round(perf_counter() - started, 3)
    after_self = _own_and_all()
    server.processes.refresh()
    used = _used(before, server.processes.cpu_s())
    used["generator"], machine = (now - then for now, then in zip(after_self, before_self, strict=True))
    used["others"] = max(0.0, machine - sum(used.values()))
    report.cores = {who: round(seconds / report.seconds, 3) for who, seconds in used.items()}


def server_cpu(report: Report, requests: int) -> list[Figure]:
    """CPU time of web processes and services a request: the figure that a busy machine distorts least."""
    if "web" not in report.cores:
        return []
    cores = report.cores["web"] + report.cores.get("services", 0.0)
    value = round(cores * report.seconds / max(requests, 1) * 1000, 3)
    return [Figure(name="server CPU", value=value, unit="ms/request", better="lower")]


def _used(before: dict[tuple[str, int], float], after: dict[tuple[str, int], float]) -> dict[str, float]:
    """CPU seconds by kind of process; a process that is new since then counts whole."""
    used: dict[str, float] = {}
    for (kind, pid), seconds in after.items():
        used[kind] = used.get(kind, 0.0) + seconds - before.get((kind, pid), 0.0)
    return used


def _own_and_all() -> tuple[float, float]:
    """CPU seconds so far of this generator and of the whole machine."""
    times = psutil.cpu_times()
    waiting = times.idle + getattr(times, "iowait", 0.0)
    # Linux counts a guest's time in user as well.
    twice = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)
    return process_time(), sum(times) - waiting - twice


def origin() -> Origin:
    """This machine and its software."""
    return Origin(
        host=socket.gethostname(),
        cpu=_cpu_name(),
        cores=os.cpu_count() or 1,
        memory_gib=round(psutil.virtual_memory().total / 2**30, 1),
        system=f"{platform.system()} {platform.release()}",
        versions={"Python": platform.python_version()} | {name: version(name) for name in _VERSIONS},
        load_average=round(os.getloadavg()[0], 2),
    )


def _cpu_name() -> str:
    known = Path("/proc/cpuinfo")
    lines = known.read_text().splitlines() if known.exists() else []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
