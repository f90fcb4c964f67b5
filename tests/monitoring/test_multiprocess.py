"""What processes counted outlives them, in few files."""

import os
import subprocess
import sys
from pathlib import Path

from prometheus_client import CollectorRegistry

from monitoring.multiprocess import AllProcesses, merge_dead

# A process that counts something and ends.
COUNT = """
from prometheus_client import Counter, Gauge, Histogram
Counter("things", "Things.", ["kind"]).labels("a").inc(2)
seconds = Histogram("took_seconds", "Time.", buckets=(0.1, 1))
seconds.observe(0.05)
seconds.observe(5)
Gauge("open", "Now.", multiprocess_mode="livesum").set(7)
"""
COUNTED = {
    ("things_total", "a"): 2,
    ("took_seconds_bucket", "0.1"): 1,
    ("took_seconds_bucket", "1.0"): 1,
    ("took_seconds_bucket", "+Inf"): 2,
    ("took_seconds_count", ""): 2,
    ("took_seconds_sum", ""): 5.05,
}


def live(folder: Path, processes: int) -> None:
    """Let so many processes count and end, one after the other."""
    for _ in range(processes):
        environment = {"PROMETHEUS_MULTIPROC_DIR": str(folder)}
        subprocess.run([sys.executable, "-c", COUNT], env=environment, check=True)


def counted(folder: Path) -> dict[tuple[str, str], float]:
    registry = CollectorRegistry()
    AllProcesses(registry, folder)
    samples = [sample for metric in registry.collect() for sample in metric.samples]
    return {(each.name, "".join(each.labels.values())): each.value for each in samples}


def times(processes: int) -> dict[tuple[str, str], float]:
    return {key: value * processes for key, value in COUNTED.items()}


def test_the_dead_become_one_and_nothing_is_lost_or_counted_twice(tmp_path: Path):
    live(tmp_path, 3)
    assert counted(tmp_path) == times(3)  # and no gauge of who has gone
    merge_dead(tmp_path, few=2)
    assert sorted(path.name for path in tmp_path.glob("*.db")) == ["counter_0.db", "histogram_0.db"]
    assert counted(tmp_path) == times(3)
    live(tmp_path, 2)
    merge_dead(tmp_path, few=1)
    assert counted(tmp_path) == times(5)
    assert len(list(tmp_path.glob("*.db"))) == 2


def test_few_files_are_left_alone(tmp_path: Path):
    live(tmp_path, 1)
    merge_dead(tmp_path)
    assert "counter_0.db" not in {path.name for path in tmp_path.iterdir()}
    assert counted(tmp_path) == times(1)


def test_a_file_that_is_being_made_harms_no_reader(tmp_path: Path):
    live(tmp_path, 1)
    (tmp_path / "counter_1.db").touch()
    assert counted(tmp_path) == times(1)


def test_a_file_that_is_gone_when_it_is_read_harms_no_reader(tmp_path: Path):
    live(tmp_path, 1)
    (tmp_path / f"counter_{os.getpid()}.db").symlink_to(tmp_path / "gone")
    assert counted(tmp_path) == times(1)
