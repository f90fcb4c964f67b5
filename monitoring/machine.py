"""CPU and memory of the machine."""

import psutil
from prometheus_client import Gauge

cpu_ratio = Gauge(
    "autoforge_machine_cpu_ratio",
    "Part of the machine's CPU time in use since the look before; 1: all cores are busy.",
    multiprocess_mode="livemostrecent",
)
memory_bytes = Gauge(
    "autoforge_machine_memory_bytes",
    "Memory of the machine: total, available.",
    ["state"],
    multiprocess_mode="livemostrecent",
)


def look() -> None:
    """Bring the gauges up to date; waits for nothing."""
    cpu_ratio.set(psutil.cpu_percent(interval=None) / 100)
    memory = psutil.virtual_memory()
    memory_bytes.labels("total").set(memory.total)
    memory_bytes.labels("available").set(memory.available)
