"""What one process looks at for all: the runs and their budgets, the database, Redis."""

from datetime import timedelta

import pytest
from django.conf import settings
from django.test.utils import override_settings
from django.utils import timezone
from prometheus_client import REGISTRY

from evaluations.events import RunEnded, emit
from evaluations.models import Dataset, Run, RunState
from monitoring import database, machine, redis
from monitoring.summary import installation_summary


def value(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(f"autoforge_{name}", labels)


@pytest.fixture
def new_run(project):
    dataset = Dataset.objects.create(project=project, name="d")

    def create(**fields) -> Run:
        shared = {
            "project": project,
            "dataset": dataset,
            "prompts": [],
            "endpoints": [],
            "concurrency": 2,
            "last_case_id": 1,
            "total": 100,
            "created_by": "test",
        }
        return Run.objects.create(**shared | fields)

    return create


def test_runs_are_counted_by_state_with_what_is_left_to_do(new_run):
    new_run(state=RunState.RUNNING, done=40)
    new_run(state=RunState.QUEUED, created_at=timezone.now() - timedelta(minutes=5))
    new_run(state=RunState.FINISHED, done=100, created_at=timezone.now() - timedelta(hours=5))
    database.look()
    runs = installation_summary()["runs"]
    assert {state: count for state, count in runs["by_state"].items() if count} == {
        "running": 1,
        "queued": 1,
        "finished": 1,
    }
    assert runs["cells_open"] == 160
    assert 300 <= value("run_queue_wait_seconds") < 900
    assert value("db_up") == 1


def test_a_run_that_spends_too_fast_is_noticed_before_it_is_over(new_run):
    new_run(state=RunState.RUNNING, budget_usd=10, cost_usd=1, done=10)  # exactly in time
    new_run(state=RunState.RUNNING, budget_usd=10, cost_usd=2, done=10)
    new_run(state=RunState.RUNNING, cost_usd=99, done=1)  # has no budget
    new_run(state=RunState.OVER_BUDGET, budget_usd=1, cost_usd=1, done=1)  # is over
    database.look()
    assert value("run_budget_overruns_expected") == 1
    assert value("run_budget_usd") == 20
    assert value("run_budget_spent_usd") == 3
    assert value("run_budget_used_ratio") == pytest.approx(0.2)


def test_nothing_is_left_over_when_runs_have_ended(new_run):
    run = new_run(state=RunState.RUNNING, budget_usd=1, cost_usd=1, done=1)
    database.look()
    run.delete()
    database.look()
    assert value("run_budget_overruns_expected") == value("run_cells_open") == 0
    assert value("run_budget_used_ratio") == value("runs", state="running") == 0


def test_an_ended_run_tells_how_well_it_used_its_concurrency(new_run):
    now = timezone.now()
    run = new_run(
        state=RunState.FINISHED, call_ms=15_000, started_at=now - timedelta(seconds=10), finished_at=now
    )
    before = value("run_parallel_efficiency_ratio_sum")
    emit(RunEnded(project_id=run.project_id, run_id=run.pk, state=run.state))
    assert value("run_parallel_efficiency_ratio_sum") - before == pytest.approx(0.75)
    assert installation_summary()["runs"]["parallel_efficiency"] is not None


@pytest.mark.skipif(not settings.REDIS_URL, reason="needs Redis")
def test_redis_is_seen_up_and_down(db):
    redis.look()
    seen = installation_summary()["redis"]
    assert seen["up"] == 1
    assert seen["used_memory_bytes"] > 0 and seen["clients"] >= 1
    with override_settings(REDIS_URL="redis://127.0.0.1:1/0"):
        redis.look()
        assert installation_summary()["redis"]["up"] == 0
    redis.look()
    assert installation_summary()["redis"]["up"] == 1


def test_the_machine_is_looked_at_without_waiting():
    machine.look()
    total, available = (value("machine_memory_bytes", state=state) for state in ("total", "available"))
    assert 0 < available <= total
    assert 0 <= value("machine_cpu_ratio") <= 1
