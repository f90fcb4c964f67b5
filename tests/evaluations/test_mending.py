"""Runs that stop early and are mended: cancel, resume, retry, budget, bugs."""

import time
from decimal import Decimal
from typing import Any

import pytest

from autoforge.models import Project
from evaluations.models import Result, Run, RunWorker, Shard
from prompts.models import ModelEndpoint
from prompts.services import create_endpoint
from tests.evaluations.conftest import wait_for_end

pytestmark = pytest.mark.django_db(transaction=True)


def slow_down(endpoint: ModelEndpoint, **changes: Any) -> None:
    endpoint.settings |= changes
    endpoint.save()


def wait_until_begun(run_id: str) -> None:
    deadline = time.monotonic() + 30
    while not Result.objects.filter(run_id=run_id).exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_cancelled_run_keeps_what_it_has_and_goes_on_later(
    api: Any, started: Any, endpoint: ModelEndpoint
) -> None:
    slow_down(endpoint, latency_ms=250)
    run = started(concurrency=1)
    wait_until_begun(run["id"])
    api.post(f"/api/v1/runs/{run['id']}/cancel").expect(200)
    cancelled = wait_for_end(api, run["id"])
    assert cancelled["state"] == "cancelled" and 0 < cancelled["done"] < 10
    before = set(Result.objects.filter(run_id=run["id"]).values_list("pk", flat=True))
    assert len(before) == cancelled["done"]
    api.post(f"/api/v1/runs/{run['id']}/cancel").expect(409)
    api.post(f"/api/v1/runs/{run['id']}/resume").expect(200)
    finished = wait_for_end(api, run["id"])
    assert (finished["state"], finished["done"]) == ("finished", 10)
    assert before <= set(Result.objects.filter(run_id=run["id"]).values_list("pk", flat=True))
    api.post(f"/api/v1/runs/{run['id']}/resume").expect(409)


def test_a_cancelled_run_makes_no_call_that_was_still_waiting(
    api: Any, started: Any, endpoint: ModelEndpoint
) -> None:
    ModelEndpoint.objects.filter(pk=endpoint.pk).update(requests_per_min=3)
    run = started(concurrency=8)
    wait_until_begun(run["id"])
    api.post(f"/api/v1/runs/{run['id']}/cancel").expect(200)
    begun = time.monotonic()
    cancelled = wait_for_end(api, run["id"])
    assert time.monotonic() - begun < 40  # the next call would be allowed after a minute
    assert cancelled["state"] == "cancelled" and cancelled["done"] <= 3 and cancelled["errors"] == 0


def test_only_errors_are_retried(api: Any, ended: Any, endpoint: ModelEndpoint) -> None:
    run = ended(repeats=2)
    broken = Result.objects.filter(run_id=run["id"]).order_by("pk")[:3]
    for result in broken:
        Result.objects.filter(pk=result.pk).update(state="error", error_code="timeout", error="It was slow.")
    Run.objects.filter(pk=run["id"]).update(errors=3, passed=8, failed=9)
    kept = set(Result.objects.filter(run_id=run["id"]).exclude(state="error").values_list("pk", flat=True))
    queued = api.post(f"/api/v1/runs/{run['id']}/retry-errors").expect(200)
    assert queued["state"] in ("queued", "running", "finished")
    again = wait_for_end(api, run["id"])
    assert {name: again[name] for name in ("state", "done", "passed", "failed", "errors")} == {
        "state": "finished",
        "done": 20,
        "passed": 10,
        "failed": 10,
        "errors": 0,
    }
    assert kept < set(Result.objects.filter(run_id=run["id"]).values_list("pk", flat=True))
    detail = api.post(f"/api/v1/runs/{run['id']}/retry-errors").expect(409)["detail"]
    assert detail == "The run has no errors."


def test_a_failing_vendor_is_a_result_and_no_failure(ended: Any, api: Any, endpoint: ModelEndpoint) -> None:
    slow_down(endpoint, error_rate=1.0)
    run = ended()
    assert (run["state"], run["errors"], run["failed"], run["passed"]) == ("finished", 10, 0, 0)
    row = api.get(f"/api/v1/runs/{run['id']}/results?state=error").expect(200)["items"][0]
    assert row["error_code"] == "unavailable" and row["error"].endswith(".") and row["score"] is None


def test_a_deleted_endpoint_is_named(api: Any, started: Any, endpoint: ModelEndpoint, settings: Any) -> None:
    slow_down(endpoint, latency_ms=250)
    run = started(concurrency=1)
    wait_until_begun(run["id"])
    api.post(f"/api/v1/runs/{run['id']}/cancel").expect(200)
    wait_for_end(api, run["id"])
    endpoint.delete()
    api.post(f"/api/v1/runs/{run['id']}/resume").expect(200)
    assert wait_for_end(api, run["id"])["errors"] > 0
    row = api.get(f"/api/v1/runs/{run['id']}/results?state=error").expect(200)["items"][0]
    assert row["error"] == "The model endpoint sim no longer exists."


def test_the_budget_is_a_hard_limit(api: Any, ended: Any, endpoint: ModelEndpoint) -> None:
    ModelEndpoint.objects.filter(pk=endpoint.pk).update(
        input_usd_per_mtok=0, output_usd_per_mtok=1000, params={"max_tokens": 3}
    )
    # Every answer has 3 tokens: $0.003, and ten of them do not fit.
    run = ended(budget_usd=0.02)
    assert run["state"] == "over_budget"
    assert run["done"] == 6 and run["cost_usd"] == pytest.approx(0.018)
    stored = Run.objects.get(pk=run["id"])
    assert stored.leased_usd == 0 and not RunWorker.objects.exists()
    low = api.post(f"/api/v1/runs/{run['id']}/resume", {"budget_usd": 0.01}).expect(422)
    assert "budget_usd" in low["detail"]
    api.post(f"/api/v1/runs/{run['id']}/resume", {"budget_usd": 1}).expect(200)
    again = wait_for_end(api, run["id"])
    assert (again["state"], again["done"]) == ("finished", 10)
    assert again["cost_usd"] == pytest.approx(0.03)


def test_under_a_budget_no_answer_is_longer_than_what_was_reserved(
    ended: Any, endpoint: ModelEndpoint
) -> None:
    ModelEndpoint.objects.filter(pk=endpoint.pk).update(
        input_usd_per_mtok=0, output_usd_per_mtok=1000, settings={"output": "word " * 5_000}
    )
    run = ended(budget_usd=5)
    assert (run["state"], run["done"], run["cost_usd"]) == ("over_budget", 1, pytest.approx(4.096))


def test_a_judge_of_one_case_without_a_price_is_an_error_under_a_budget(
    api: Any, ended: Any, dataset: str, project: Project
) -> None:
    create_endpoint(project, name="own", provider="openai", model="m", base_url="https://own.example/v1")
    rubric = {"type": "llm-rubric", "value": "is kind", "provider": "own"}
    api.post(f"/api/v1/datasets/{dataset}/cases", {"vars": {"q": "me"}, "scorers": [rubric]}).expect(201)
    run = ended(budget_usd=1)
    assert (run["state"], run["errors"]) == ("finished", 1)
    row = api.get(f"/api/v1/runs/{run['id']}/results?state=error").expect(200)["items"][0]
    assert "No price of the model 'own' is known" in row["error"]


def test_a_judge_that_the_budget_cannot_pay_is_no_error(
    api: Any, ended: Any, endpoint: ModelEndpoint, project: Project
) -> None:
    prices = {"input_usd_per_mtok": 0, "output_usd_per_mtok": 1000, "params": {"max_tokens": 30}}
    ModelEndpoint.objects.filter(pk=endpoint.pk).update(**prices)
    verdict = '{"pass": true, "score": 1, "reason": "kind"}'
    judge = create_endpoint(project, name="judge", provider="simulated", settings={"output": verdict})
    ModelEndpoint.objects.filter(pk=judge.pk).update(**prices)
    # A call reserves $0.03; an answer costs $0.003 and its judge $0.006.
    rubric = [{"type": "llm-rubric", "value": "is kind", "provider": "judge"}]
    run = ended(budget_usd=0.05, concurrency=1, scorers=rubric)
    assert (run["state"], run["errors"]) == ("over_budget", 0)
    assert 0 < run["done"] < 10 and run["cost_usd"] <= 0.05
    api.post(f"/api/v1/runs/{run['id']}/resume", {"budget_usd": 1}).expect(200)
    again = wait_for_end(api, run["id"])
    assert (again["state"], again["passed"], again["cost_usd"]) == ("finished", 10, pytest.approx(0.09))


def test_errors_that_are_paid_again_are_counted_again(
    api: Any, ended: Any, endpoint: ModelEndpoint, project: Project
) -> None:
    ModelEndpoint.objects.filter(pk=endpoint.pk).update(input_usd_per_mtok=0, output_usd_per_mtok=1000)
    create_endpoint(project, name="judge", provider="simulated", settings={"error_rate": 1.0})
    run = ended(scorers=[{"type": "llm-rubric", "value": "is kind", "provider": "judge"}], use_cache=False)
    assert run["errors"] == 10 and run["cost_usd"] > 0
    api.post(f"/api/v1/runs/{run['id']}/retry-errors").expect(200)
    again = wait_for_end(api, run["id"])
    assert again["errors"] == 10 and again["cost_usd"] == pytest.approx(2 * run["cost_usd"])


def test_a_bug_fails_the_run_and_is_logged_once(
    api: Any, started: Any, endpoint: ModelEndpoint, caplog: Any
) -> None:
    slow_down(endpoint, latency_ms=250)
    run = started(concurrency=1)
    wait_until_begun(run["id"])
    api.post(f"/api/v1/runs/{run['id']}/cancel").expect(200)
    wait_for_end(api, run["id"])
    Run.objects.filter(pk=run["id"]).update(scorers=[{"type": "nonsense"}])
    Shard.objects.filter(run_id=run["id"]).update(is_done=False)
    api.post(f"/api/v1/runs/{run['id']}/resume").expect(200)
    failed = wait_for_end(api, run["id"])
    assert failed["state"] == "failed" and "ScorerError" in failed["reason"]
    assert len([record for record in caplog.records if record.levelname == "ERROR"]) == 1
    assert Run.objects.get(pk=run["id"]).leased_usd == Decimal(0)
