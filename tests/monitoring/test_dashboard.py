"""The landing page answers an operator: what breaks, what is slow, what costs money, what regressed."""

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.test import Client
from django.utils import timezone

from autoforge.models import KeySpending, Project, Role
from autoforge.services import create_api_key
from evaluations.models import Case, Dataset, Result, Run, RunState, RunWorker
from monitoring.bounds import Level, Moment, installation_bounds, moment_of
from monitoring.numbers import numbers_of
from tests.monitoring.test_history import remember
from tests.prompts.test_admin import sign_in

HOME = "/admin/"
CELLS = 24


def run_of(dataset: Dataset, version: int, passed: int, **fields: Any) -> Run:
    """A finished run of `nightly/classify` over CELLS cases, of which the first `passed` passed."""
    cases = list(dataset.cases.order_by("pk"))
    values = {
        "project": dataset.project,
        "dataset": dataset,
        "name": f"Try {version}",
        "state": RunState.FINISHED,
        "prompts": [{"name": "nightly/classify", "version": version}],
        "endpoints": [{"name": "gpt", "provider": "openai"}],
        "concurrency": 4,
        "last_case_id": cases[-1].pk,
        "total": len(cases),
        "done": len(cases),
        "passed": passed,
        "failed": len(cases) - passed,
        "cost_usd": Decimal("1.25"),
        "created_by": "test",
        "started_at": timezone.now(),
        "finished_at": timezone.now(),
    }
    run = Run.objects.create(**values | fields)
    Result.objects.bulk_create(
        Result(
            run=run,
            case=case,
            column=0,
            state="passed" if index < passed else "failed",
            latency_ms=40 + index,
            cost_usd=Decimal("1.25") / len(cases),
        )
        for index, case in enumerate(cases)
    )
    return run


@pytest.fixture
def dataset(project: Project) -> Dataset:
    made = Dataset.objects.create(project=project, name="complaints", case_count=CELLS)
    Case.objects.bulk_create(Case(dataset=made, vars={"q": number}) for number in range(CELLS))
    return made


@pytest.fixture
def editor(project: Project) -> Client:
    return sign_in("ada", project)


def page(client: Client) -> str:
    response = client.get(HOME)
    assert response.status_code == 200
    return response.content.decode()


def test_the_run_that_regressed_is_named_with_its_significance(dataset: Dataset, editor: Client) -> None:
    before, after = run_of(dataset, 1, 20), run_of(dataset, 2, 6)
    changes = editor.get(HOME).context["shown"].changes
    assert [(change.verdict, change.count, change.pairs.lost) for change in changes] == [
        ("regressed", 24, 14)
    ]
    assert changes[0].p_adjusted < 0.001
    body = page(editor)
    assert "nightly/classify v1 → v2 · gpt" in body
    assert f"/admin/evaluations/run/{after.pk}/compare/?a={before.pk}:0&b={after.pk}:0" in body
    # What may be chance is not called a regression.
    run_of(dataset, 3, 5)
    assert [change.verdict for change in editor.get(HOME).context["shown"].changes] == ["unclear"]
    run_of(dataset, 4, 24)
    assert [change.verdict for change in editor.get(HOME).context["shown"].changes] == ["improved"]


def test_another_experiment_is_no_predecessor(dataset: Dataset, editor: Client) -> None:
    run_of(dataset, 1, 20)
    run_of(dataset, 1, 2, endpoints=[{"name": "small", "provider": "openai"}])
    run_of(dataset, 1, 2, scorers=[{"type": "equals", "value": "x"}])
    assert editor.get(HOME).context["shown"].changes == []


def test_what_costs_money_is_named(dataset: Dataset, editor: Client) -> None:
    run = run_of(dataset, 1, 20)
    shown = editor.get(HOME).context["shown"]
    (model,) = shown.models
    assert (model.name, model.runs, model.cells) == ("gpt", 1, CELLS)
    assert float(model.cost_usd) == pytest.approx(1.25, abs=1e-6)
    assert (model.mean_ms, model.slowest_ms) == (51.5, 63)
    assert list(shown.dearest_runs) == [run]


def test_what_is_slow_is_named(editor: Client) -> None:
    page(editor)
    views = {view.name: view for view in editor.get(HOME).context["shown"].timings.views}
    assert views
    assert sum(view.share for view in views.values()) <= 1.0001
    assert all(view.p95_ms > 0 for view in views.values())


def live(dataset: Dataset, **fields: Any) -> Run:
    """A run at work on which a worker is."""
    run = run_of(dataset, 1, 0, state=RunState.RUNNING, finished_at=None, **fields)
    RunWorker.objects.create(run=run, name="w")
    return run


def test_a_budget_that_runs_out_is_named(dataset: Dataset, editor: Client) -> None:
    live(dataset, name="Dear", budget_usd=Decimal("1.28"))
    live(dataset, name="Cheap", budget_usd=Decimal("100"))
    levels = {bound.name: bound.level for bound in editor.get(HOME).context["shown"].bounds}
    assert levels["Budget of Dear"] == Level.REACHED
    assert levels["Budget of Cheap"] == Level.FINE


def test_a_key_whose_budget_runs_out_is_named_to_owners(project: Project, editor: Client) -> None:
    key = create_api_key(project, name="gateway", role=Role.EDITOR, budget_usd=Decimal(10)).key
    month = timezone.now().date().replace(day=1)
    KeySpending.objects.create(key=key, month=month, spent_usd=Decimal("9.5"))
    KeySpending.objects.create(key=key, month=month - timedelta(days=1), spent_usd=Decimal(10))
    bounds = sign_in("olga", project, Role.OWNER).get(HOME).context["shown"].bounds
    named = [(bound.level, bound.text) for bound in bounds if bound.name == "Budget of the key gateway"]
    assert named == [(Level.REACHED, "$9.5000 of $10.00 this month")]
    assert "gateway" not in page(editor)


def test_a_run_that_no_worker_takes_up_is_named(dataset: Dataset, editor: Client) -> None:
    run = live(dataset, name="Stuck", enqueued_at=timezone.now() - timedelta(minutes=5))
    assert "No worker has taken it up" not in page(editor)
    RunWorker.objects.filter(run=run).update(heartbeat_at=timezone.now() - timedelta(minutes=5))
    assert "No worker has taken it up" in page(editor)


def test_a_history_that_nobody_writes_is_named(editor: Client) -> None:
    assert "Nobody records these numbers" in page(editor)
    remember(10, {"http.requests": 1})
    assert "Nobody records these numbers" not in page(editor)


def test_what_the_numbers_say_becomes_sentences(settings: Any) -> None:
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    settings.MEMORY_LIMIT_BYTES = 100 * 2**20
    now = {
        "redis.up": 0,
        "pool.in_use": 27,
        "pool.limit": 30,
        "websockets.connections": 100,
        "websockets.capacity": 30_000,
    }
    rise = {
        "http.responses.200": 90,
        "http.responses.503": 10,
        "http.rate_limited": 3,
        "models.calls.ok": 97,
        "models.calls.rate_limited": 3,
        "processes.loop_lag_buckets.100": 90,
        "processes.loop_lag_buckets.500": 10,
        "processes.loop_lag_buckets.inf": 0,
    }
    summary = {"processes": {"by_process": [{"pid": 7, "kind": "web", "resident_bytes": 99 * 2**20}]}}
    found = {bound.name: bound for bound in installation_bounds(Moment(summary, now, rise, timezone.now()))}
    assert {name: bound.level.value for name, bound in found.items()} == {
        "Redis": "reached",
        "Database pool": "near",
        "Memory": "reached",
        "WebSockets": "fine",
        "Event loop": "near",
        "Errors": "reached",
        "Rate limits": "near",
        "Model calls": "near",
    }
    assert found["Event loop"].text.startswith("It woke up 460 ms late (P99) in the last 5 min")
    assert found["Model calls"].text.endswith("failed: rate limited 3.")
    assert found["Memory"].text == "99 of 100 MiB (web, process 7)"


def test_a_loop_that_was_late_long_ago_is_fine(db: None) -> None:
    def lags(few_ms: int, a_second: int) -> dict[str, Any]:
        rows = [{"le_ms": 1.0, "count": few_ms}, {"le_ms": 1000.0, "count": a_second}]
        return {"processes": {"by_process": [], "loop_lag_buckets": rows}}

    def names(summary: dict[str, Any]) -> set[str]:
        return {bound.name for bound in installation_bounds(moment_of(summary))}

    bad = lags(100, 100)
    assert "Event loop" not in names(bad)  # nobody knows when that was
    remember(10, numbers_of(bad), numbers_of(bad))
    assert "Event loop" not in names(lags(300, 100))
    assert "Event loop" in names(lags(100, 300))


def test_a_stranger_sees_nothing_of_ours(dataset: Dataset, other_project: Project) -> None:
    run_of(dataset, 1, 20)
    run_of(dataset, 2, 6)
    live(dataset, name="Dear", budget_usd=Decimal("1.28"))
    for client in (sign_in("eve", other_project, Role.OWNER), sign_in("nobody")):
        body = page(client)
        for word in ("nightly", "Try", "Dear", "complaints", "acme", "gpt"):
            assert word not in body, word
    assert "Dear" in page(sign_in("root", is_superuser=True))


@pytest.mark.django_db
def test_who_is_no_staff_is_sent_to_the_login() -> None:
    client = Client()
    assert client.get(HOME).status_code == 302
    client.force_login(get_user_model().objects.create_user("mia", password="a long password"))
    response = client.get(HOME)
    assert response.status_code == 302
    assert "/admin/login/" in response.headers["Location"]


def test_it_costs_the_same_whatever_there_is(
    dataset: Dataset, editor: Client, django_assert_max_num_queries: Any
) -> None:
    for version in range(1, 7):
        run_of(dataset, version, version)
        live(dataset, name=f"Live {version}", budget_usd=Decimal("2"))
    page(editor)
    with django_assert_max_num_queries(14):
        page(editor)


def test_its_scripts_are_files(editor: Client) -> None:
    response = editor.get(HOME)
    assert "<script>" not in response.content.decode()
    assert (
        "'unsafe-inline'"
        not in response.headers["Content-Security-Policy"].partition("script-src")[2].partition(";")[0]
    )
