"""What POST runs takes and refuses, who may see runs, and what lists cost."""

from typing import Any

import pytest
from django.db import connection
from django.test import override_settings
from django.test.utils import CaptureQueriesContext

from autoforge.auth import Actor
from autoforge.models import Project
from evaluations.models import Run, Shard
from prompts.models import ModelEndpoint, Prompt
from prompts.services import add_version, create_endpoint, create_prompt, move_label
from tests.evaluations.conftest import experiment

pytestmark = pytest.mark.django_db


@pytest.fixture
def ready(prompt: Prompt, endpoint: ModelEndpoint, dataset: str) -> None:
    """All that an experiment names. Without a commit nothing is executed."""


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"prompts": []}, "at least one prompt"),
        ({"models": []}, "at least one prompt and one model"),
        ({"prompts": [{"name": "nobody"}]}, "prompts[0]: "),
        ({"prompts": [{"name": "greet", "version": 9}]}, "prompts[0]: The prompt 'greet' has no version 9"),
        ({"prompts": [{"name": "greet", "label": "x"}]}, "has no label 'x'"),
        ({"prompts": [{"name": "greet", "label": "x", "version": 1}]}, "label or a version, not both"),
        ({"models": ["gone"]}, "models[0]: there is no model endpoint 'gone'"),
        ({"dataset": "gone"}, "There is no data set 'gone'"),
        ({"dataset": "empty"}, "has no cases"),
        ({"dataset": "other"}, "prompts[0]: greet version 1 cannot be filled from the first case of other"),
        ({"scorers": [{"type": "equal", "value": 1}]}, "scorers[0].type (equal): is no known scorer"),
        ({"scorers": [{"type": "llm-rubric", "value": "x", "provider": "gone"}]}, "'gone' to judge with"),
        ({"scorers": [{"type": "word-count", "value": 10**400}]}, "must be a number or"),
        ({"concurrency": 0}, "concurrency must be between 1 and 1000, not 0"),
        ({"concurrency": 5000}, "concurrency must be between"),
        ({"concurrency": "5"}, "concurrency"),
        ({"prompts": [{"name": "nobody"}] * 101}, "101 columns (prompts × models) are over the limit of 100"),
        ({"repeats": 0}, "repeats must be at least 1"),
        ({"repeats": 1_000_000}, "the limit is 1,000,000"),
        ({"budget_usd": 0}, "budget_usd must be above 0"),
        ({"budget_usd": -1}, "budget_usd must be above 0"),
        ({"threshold": 2}, "threshold must be between 0 and 1"),
        ({"seed": 2**70}, "seed"),
        ({"name": "x" * 201}, "name may have at most 200"),
        ({"extra": 1}, "extra"),
    ],
)
def test_a_wrong_experiment_is_refused_with_a_sentence(
    api: Any, ready: None, changes: dict[str, Any], sentence: str
) -> None:
    api.post("/api/v1/datasets", {"name": "empty"}).expect(201)
    api.post("/api/v1/datasets", {"name": "other"}).expect(201)
    api.post("/api/v1/datasets/other/cases", {"vars": {"p": 1}}).expect(201)
    assert sentence in api.post("/api/v1/runs", experiment(**changes)).expect(422)["detail"]
    assert not Run.objects.exists()


def test_a_budget_needs_the_price_of_every_model(api: Any, ready: None, project: Project) -> None:
    unknown = create_endpoint(
        project, name="own", provider="openai", model="m", base_url="https://own.example/v1"
    )
    rubric = [{"type": "llm-rubric", "value": "nice", "provider": "own"}]
    for changes in ({"models": ["sim", "own"]}, {"scorers": rubric}):
        refused = api.post("/api/v1/runs", experiment(budget_usd=1, **changes)).expect(422)
        assert "No price of the model 'own' is known" in refused["detail"]
        api.post("/api/v1/runs", experiment(**changes)).expect(201)
    run = Run.objects.earliest("created_at")
    Run.objects.filter(pk=run.pk).update(state="cancelled")
    refused = api.post(f"/api/v1/runs/{run.pk}/resume", {"budget_usd": 1}).expect(422)
    assert "keeps the prices of its start" in refused["detail"]
    ModelEndpoint.objects.filter(pk=unknown.pk).update(input_usd_per_mtok=0, output_usd_per_mtok=0)
    api.post("/api/v1/runs", experiment(budget_usd=1, models=["sim", "own"], scorers=rubric)).expect(201)


def test_a_run_is_frozen_when_it_starts(api: Any, ready: None, endpoint: ModelEndpoint) -> None:
    with override_settings(RUN_SHARD_CELLS=6):
        run = api.post("/api/v1/runs", experiment(repeats=2, name="first")).expect(201)
    assert (run["state"], run["total"], run["done"], run["name"]) == ("queued", 20, 0, "first")
    assert run["columns"] == [{"prompt": "greet", "version": 1, "model": "sim"}]
    assert run["parallel_efficiency"] is None and run["finished_at"] is None
    stored = Run.objects.get(pk=run["id"])
    assert stored.prompts[0]["template"] == "Say {{ q }}" and stored.endpoints[0]["api_key"] is None
    spans = list(Shard.objects.order_by("number").values_list("first_case_id", "last_case_id"))
    assert [last - first + 1 for first, last in spans] == [3, 3, 3, 1]
    api.post("/api/v1/datasets/support/cases", {"vars": {"q": "late"}}).expect(201)
    assert stored.frozen_cases().count() == 10


def test_no_secret_is_frozen(api: Any, ready: None, project: Any) -> None:
    create_endpoint(project, name="paid", provider="openai", model="m", api_key="sk-secret")
    rubric = [{"type": "llm-rubric", "value": "nice", "provider": "paid"}]
    run = api.post("/api/v1/runs", experiment(models=["sim", "paid"], scorers=rubric)).expect(201)
    stored = Run.objects.filter(pk=run["id"]).values_list("endpoints", "judges", "scorers").get()
    assert "sk-secret" not in str(stored) and stored[1][0]["name"] == "paid"


def test_the_same_key_starts_one_run(api: Any, ready: None) -> None:
    once = api.with_headers(idempotency_key="k1")
    first = once.post("/api/v1/runs", experiment()).expect(201)
    assert once.post("/api/v1/runs", experiment()).expect(201)["id"] == first["id"]
    once.post("/api/v1/runs", experiment(repeats=2)).expect(409)
    assert Run.objects.count() == 1


def test_runs_are_listed_newest_first_at_a_fixed_cost(
    api: Any, ready: None, django_assert_num_queries: Any
) -> None:
    ids = [api.post("/api/v1/runs", experiment()).expect(201)["id"] for _ in range(5)]
    with django_assert_num_queries(1):
        page = api.get("/api/v1/runs?limit=3").expect(200)
    rest = api.get(f"/api/v1/runs?limit=3&cursor={page['next_cursor']}").expect(200)
    assert [run["id"] for run in page["items"] + rest["items"]] == ids[::-1]
    assert api.get("/api/v1/runs?state=finished").expect(200)["items"] == []
    assert len(api.get("/api/v1/runs?dataset=support&state=queued").expect(200)["items"]) == 5
    assert "state must be one of" in api.get("/api/v1/runs?state=odd").expect(422)["detail"]
    with django_assert_num_queries(1):
        api.get(f"/api/v1/runs/{ids[0]}").expect(200)


def test_others_see_nothing_and_viewers_change_nothing(
    api: Any, viewer: Any, stranger: Any, nobody: Any, ready: None
) -> None:
    run_id = api.post("/api/v1/runs", experiment()).expect(201)["id"]
    base = f"/api/v1/runs/{run_id}"
    for url in (base, f"{base}/results", f"{base}/report", f"{base}/export"):
        viewer.get(url).expect(200)
        stranger.get(url).expect(404)
        nobody.get(url).expect(401)
    stranger.get(f"{base}/compare/{run_id}").expect(404)
    nobody.get(f"{base}/compare/{run_id}").expect(401)
    for action in ("cancel", "resume", "retry-errors"):
        viewer.post(f"{base}/{action}").expect(403)
        stranger.post(f"{base}/{action}").expect(404)
        nobody.post(f"{base}/{action}").expect(401)
    viewer.post("/api/v1/runs", experiment()).expect(403)
    nobody.post("/api/v1/runs", experiment()).expect(401)
    assert "prompts[0]" in stranger.post("/api/v1/runs", experiment()).expect(422)["detail"]
    assert stranger.get("/api/v1/runs").expect(200)["items"] == []
    nobody.get("/api/v1/runs").expect(401)
    viewer.get("/api/v1/runs/nonsense").expect(404)
    assert Run.objects.get().state == "queued"


def queries_of(api: Any, prompts: list[dict[str, Any]]) -> tuple[int, Run]:
    """How many queries a run of `prompts` takes to start, and the run."""
    with CaptureQueriesContext(
        connection,
    ) as queries:
        run = api.post("/api/v1/runs", experiment(prompts=prompts)).expect(201)
    return len(queries), Run.objects.get(pk=run["id"])


def test_prompts_are_found_as_alone_and_in_as_many_queries_as_one(
    api: Any, ready: None, project: Project, actor: Actor, prompt: Prompt
) -> None:
    for number in range(2, 6):
        add_version(prompt, template=f"Say {number} {{{{ q }}}}", actor=actor)
    for number in range(5):
        create_prompt(project, name=f"p{number}", type="text", template=f"{number} {{{{ q }}}}", actor=actor)
    queries_of(api, [{"name": "greet"}])  # from now on this process knows the key
    unlabelled = [{"name": "greet"}, {"name": "greet", "label": "latest"}]
    few, run = queries_of(api, unlabelled)
    assert [found["version"] for found in run.prompts] == [5, 5]
    move_label(prompt, label="production", version=3, actor=actor)
    move_label(prompt, label="old", version=2, actor=actor)
    chosen = [{"name": "greet", "version": number} for number in range(1, 6)]
    others = [{"name": f"p{number}"} for number in range(5)]
    many, run = queries_of(api, [*unlabelled, {"name": "greet", "label": "old"}, *chosen, *others])
    assert [found["version"] for found in run.prompts] == [3, 5, 2, 1, 2, 3, 4, 5, 1, 1, 1, 1, 1]
    assert [found["name"] for found in run.prompts[8:]] == ["p0", "p1", "p2", "p3", "p4"]
    assert many == few


def test_a_version_of_another_project_is_not_found(
    api: Any, ready: None, other_project: Project, actor: Actor
) -> None:
    create_prompt(other_project, name="theirs", type="text", template="{{ q }}", actor=actor)
    for choice in ({}, {"version": 1}, {"label": "latest"}):
        refused = api.post("/api/v1/runs", experiment(prompts=[{"name": "theirs", **choice}])).expect(422)
        assert refused["detail"] == "prompts[0]: There is no prompt 'theirs' in this project."
