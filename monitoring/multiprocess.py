"""The files in which the processes of a machine count, read together; those of the dead become one.

prometheus_client gives each process its files in PROMETHEUS_MULTIPROC_DIR and leaves them when it ends: what
was counted stays counted. Processes that are replaced again and again would make every scrape slower.
"""

import fcntl
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from prometheus_client import CollectorRegistry, Metric, mmap_dict
from prometheus_client.multiprocess import MultiProcessCollector

# With fewer files of dead processes merging is not worth it.
FEW = 8
_LOCK = "reading.lock"
# What dead processes counted is kept as that of a process that cannot exist.
_NOBODY = 0
_File: Any = mmap_dict.MmapedDict  # untyped


class AllProcesses(MultiProcessCollector):
    """What all processes that share a folder have counted."""

    def __init__(self, registry: CollectorRegistry, folder: Path) -> None:
        super().__init__(registry, str(folder))
        self._folder = folder

    def collect(self) -> Iterable[Metric]:
        forget_gauges(self._folder)
        with _locked(self._folder, fcntl.LOCK_SH):
            # A file is empty for the moment in which its process makes it.
            files = [str(path) for path in self._folder.glob("*.db") if _size(path)]
            metrics: Iterable[Metric] = self.merge(files, accumulate=True)
            return metrics


def _size(path: Path) -> int:
    """0 for a file that another reader has just forgotten."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def forget_gauges(folder: Path) -> None:
    """A killed process cannot take back its gauges of live things: whoever reads next does."""
    for path in _of_dead(folder, "gauge_live*_*.db"):
        path.unlink(missing_ok=True)


def merge_dead(folder: Path, *, few: int = FEW) -> None:
    """Put together what dead processes counted. To be called by one process at a time; readers wait."""
    for kind in ("counter", "histogram"):
        dead = _of_dead(folder, f"{kind}_*.db")
        if len(dead) > few:
            with _locked(folder, fcntl.LOCK_EX):
                _merge([*dead, *folder.glob(f"{kind}_{_NOBODY}.db")], folder / f"{kind}_{_NOBODY}.db")


def _merge(paths: list[Path], target: Path) -> None:
    """Values of counters, and of buckets by themselves, add up."""
    sums: dict[str, float] = defaultdict(float)
    for path in paths:
        for key, value, _, _ in _File.read_all_values_from_file(path):
            sums[key] += value
    fresh = target.with_suffix(".merging")
    fresh.unlink(missing_ok=True)
    values = _File(fresh)
    for key, value in sums.items():
        values.write_value(key, value, 0.0)
    values.close()
    fresh.replace(target)
    for path in set(paths) - {target}:
        path.unlink()


def _of_dead(folder: Path, pattern: str) -> list[Path]:
    pids = {path: int(path.stem.rpartition("_")[2]) for path in folder.glob(pattern)}
    return [path for path, pid in pids.items() if pid != _NOBODY and not psutil.pid_exists(pid)]


@contextmanager
def _locked(folder: Path, how: int) -> Iterator[None]:
    descriptor = os.open(folder / _LOCK, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(descriptor, how)
        yield
    finally:
        os.close(descriptor)
