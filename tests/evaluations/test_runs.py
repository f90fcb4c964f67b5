"""Runs from end to end: start, execution, results."""

import time
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.db.models import Max, Min
from django.utils import timezone

from autoforge.auth import Actor
from autoforge.models import Project
from evaluations import executor
from evaluations.drains import drains
from evaluations.events import ResultRecorded, RunEnded, RunProgressed
from evaluations.models import Run
from prompts.models import ModelEndpoint
from prompts.services import create_endpoint, create_prompt
from tests.evaluations.conftest import experiment, fill, wait_for_end

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_run_judges_every_cell(api: Any, ended: Any) -> None:
    run = ended(repeats=2)
    assert (run["state"], run["reason"]) == ("finished", "")
    counts = {name: run[name] for name in ("total", "done", "passed", "failed", "errors")}
    assert counts == {"total": 20, "done": 20, "passed": 10, "failed": 10, "errors": 0}
    results = api.get(f"/api/v1/runs/{run['id']}/results?limit=200").expect(200)["items"]
    assert len({(row["case"], row["repeat"]) for row in results}) == 20
    first = results[0]
    assert first["output"].startswith("Say support") and first["tokens"]["input"] > 0
    assert {row["state"] for row in results} == {"passed", "failed"}
    assert all(row["score"] == (row["state"] == "passed") for row in results)


def test_a_second_run_comes_from_the_cache(ended: Any) -> None:
    first, second, third = ended(), ended(), ended(use_cache=False)
    assert (first["cache_hits"], second["cache_hits"], third["cache_hits"]) == (0, 10, 0)


def test_runs_are_executed_side_by_side(api: Any, started: Any, endpoint: ModelEndpoint) -> None:
    endpoint.settings = {"latency_ms": 150}
    endpoint.save()
    runs = [started(concurrency=1, seed=seed)["id"] for seed in range(3)]
    assert [wait_for_end(api, run)["done"] for run in runs] == [10, 10, 10]
    first_results, last_results = zip(
        *Run.objects.filter(pk__in=runs).values_list(Min("results__created_at"), Max("results__created_at")),
        strict=True,
    )
    assert max(first_results) < min(last_results)


def test_a_run_without_a_place_waits_for_one(
    api: Any, started: Any, endpoint: ModelEndpoint, settings: Any
) -> None:
    settings.WORKER_THREADS = 1
    endpoint.settings = {"latency_ms": 30}
    endpoint.save()
    first, second = (started(concurrency=1, seed=seed)["id"] for seed in range(2))
    assert Run.objects.get(pk=second).state == "queued"
    assert [wait_for_end(api, run)["done"] for run in (first, second)] == [10, 10]


def test_runs_that_hang_hold_up_no_other_project(
    api: Any, stranger: Any, started: Any, endpoint: ModelEndpoint, other_project: Project, settings: Any
) -> None:
    settings.WORKER_THREADS = 1
    ModelEndpoint.objects.filter(pk=endpoint.pk).update(settings={"latency_ms": 2_000})
    hanging = [started(concurrency=1, seed=seed)["id"] for seed in range(3)]
    theirs = Actor.system(other_project)
    create_prompt(other_project, name="greet", type="text", template="Say {{ q }}", actor=theirs)
    create_endpoint(other_project, name="sim", provider="simulated", settings={"output": "echo"})
    fill(stranger, "support", 10)
    others = [stranger.post("/api/v1/runs", experiment(seed=seed)).expect(201)["id"] for seed in range(2)]
    Run.objects.update(enqueued_at=timezone.now() - timedelta(minutes=1))
    for run_id in others:
        assert executor.take_up_runs() == 1  # one place beside, for one of theirs
        wait_until_left(run_id)
    assert executor.take_up_runs() == 0
    assert [run.state for run in Run.objects.filter(pk__in=others)] == ["finished"] * 2
    assert [Run.objects.get(pk=run_id).state for run_id in hanging] == ["running", "queued", "queued"]
    for run_id in hanging:
        api.post(f"/api/v1/runs/{run_id}/cancel").expect(200)


def wait_until_left(run_id: str) -> None:
    """Until nobody here drains the run."""
    deadline = time.monotonic() + 30
    while UUID(run_id) in drains.run_ids:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_world_hears_of_every_result_and_of_the_end(ended: Any, heard: list[Any]) -> None:
    run = ended()
    recorded = [row for event in heard if isinstance(event, ResultRecorded) for row in event.results]
    assert len({row["id"] for row in recorded}) == len(recorded) == 10
    assert [event.state for event in heard if isinstance(event, RunEnded)] == ["finished"]
    last = [event for event in heard if isinstance(event, RunProgressed)][-1]
    assert (str(last.run_id), last.state, last.done) == (run["id"], "finished", 10)
