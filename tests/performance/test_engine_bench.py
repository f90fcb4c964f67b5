"""Micro-benchmarks of a run: what a batch of results and a whole cell cost."""

from itertools import count
from typing import Any

import pytest

from autoforge.auth import Actor
from autoforge.models import Project
from evaluations import claims, executor
from evaluations.models import Run
from evaluations.recording import FinishedCell, record_batch
from evaluations.schemas import NewCase, NewRun, PromptRef
from evaluations.services import add_cases, create_dataset, start_run
from prompts.services import create_endpoint, create_prompt

pytestmark = pytest.mark.django_db(transaction=True)

CASES = 500
BATCH = 50


@pytest.fixture
def new_run(project: Project, actor: Actor) -> Any:
    """Makes runs of 500 cells whose model answers at once."""
    create_prompt(project, name="greet", type="text", template="Say {{ q }}", actor=actor)
    create_endpoint(project, name="sim", provider="simulated")
    cases = [NewCase(vars={"q": str(number)}, expected=f"Say {number}") for number in range(CASES)]
    add_cases(create_dataset(project, name="many"), cases)
    new = NewRun(
        prompts=[PromptRef("greet")],
        models=["sim"],
        dataset="many",
        scorers=[{"type": "equals", "value": "{{ expected }}"}],
        concurrency=100,
        use_cache=False,
    )
    return lambda: start_run(project, new, actor=actor, enqueue=False)


def test_a_run_of_500_cells(benchmark: Any, new_run: Any) -> None:
    def drain(run: Run) -> None:
        assert executor.run_to_end(run.pk).passed == CASES

    benchmark.pedantic(drain, setup=lambda: ((new_run(),), {}), rounds=5)


def test_a_batch_of_50_results(benchmark: Any, new_run: Any) -> None:
    run = new_run()
    worker = claims.join_run(run.pk, "bench")
    case = run.frozen_cases().first()
    repeats = count()

    def batch() -> None:
        cells = [
            FinishedCell(case_id=case.pk, column=0, repeat=next(repeats), state="passed", output="x" * 200)
            for _ in range(BATCH)
        ]
        assert len(record_batch(worker, cells, []).ids) == BATCH

    benchmark(batch)
