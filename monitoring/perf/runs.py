"""Runs as a load: fresh cells that no cache knows, timed from outside."""

import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from monitoring.perf.api import Api
from monitoring.perf.server import Server

_PROMPT = "perf/cells"


@dataclass(frozen=True)
class CellLoad:
    """Cells to execute: how many, on which endpoint, how long each call takes there, how many at once."""

    cells: int
    model: str
    latency_ms: float
    concurrency: int


@dataclass(frozen=True)
class Outcome:
    """One run: the server's record of it, and CPU seconds of the workers from its start to its end."""

    run: dict[str, Any]
    worker_cpu_s: float

    @property
    def wall_s(self) -> float:
        started, finished = (datetime.fromisoformat(self.run[name]) for name in ("started_at", "finished_at"))
        return (finished - started).total_seconds()

    @property
    def pick_up_s(self) -> float:
        """From the request until a worker began."""
        created, started = (datetime.fromisoformat(self.run[name]) for name in ("created_at", "started_at"))
        return (started - created).total_seconds()

    @property
    def cells_per_s(self) -> float:
        return float(self.run["total"]) / self.wall_s

    @property
    def cpu_ms_per_cell(self) -> float:
        return self.worker_cpu_s / self.run["total"] * 1000

    def efficiency(self, load: CellLoad) -> float:
        """Wall time of a machine that adds nothing to the calls' nominal latency, over ours.

        Stricter than the run's own `parallel_efficiency`, which counts calls as long as they took:
        a worker short of CPU makes its calls longer, and that looks like work.
        """
        return load.cells * load.latency_ms / 1000 / min(load.concurrency, load.cells) / self.wall_s


async def ensure_cells(api: Api, cells: int) -> str:
    """The name of a dataset with that many different cases."""
    name = f"perf-cells-{cells}"
    lines = b"\n".join(b'{"input":"question %d","ideal":"question"}' % number for number in range(cells))
    await api.ensure_dataset(name, lines)
    return name


async def new_cells(api: Api, load: CellLoad) -> dict[str, Any]:
    """The body of a run whose cells nobody asked before: its prompt holds a new word."""
    version = await api.ensure_prompt(_PROMPT, f"{{{{ input }}}} ({uuid.uuid4().hex})")
    return {
        "prompts": [{"name": _PROMPT, "version": version}],
        "models": [load.model],
        "dataset": await ensure_cells(api, load.cells),
        "scorers": [{"type": "word-count", "value": {"min": 1}}],
        "concurrency": load.concurrency,
    }


async def execute(api: Api, server: Server, new: dict[str, Any]) -> Outcome:
    """Start the run and wait until it has finished. Raises PerfError when it does not."""
    before_s = server.processes.worker_cpu_s()
    run = await api.finished_run(new)
    return Outcome(run, server.processes.worker_cpu_s() - before_s)
