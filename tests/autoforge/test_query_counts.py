"""Every route that reads costs the same number of queries whatever there is: N+1 cannot come back."""

import re
from typing import Any

import pytest
from django.core.cache import caches
from django.db import connection
from django.db.models.functions import Now
from django.urls import URLPattern, URLResolver, get_resolver
from prometheus_client import REGISTRY

from autoforge.auth import Actor
from autoforge.caching import clear_copies
from autoforge.models import Project
from evaluations.compat.langfuse.items import key_of
from evaluations.models import Case, Result, ResultState, Run
from evaluations.schemas import NewCase, NewRun, PromptRef
from evaluations.services import add_cases, create_dataset, start_run
from prompts.models import Prompt
from prompts.services import add_version, create_endpoint, create_prompt, move_label
from tests.conftest import ApiClient

pytestmark = pytest.mark.django_db(transaction=True)
MANY = 7
QUERIES = {
    "prompt-diff": "?from=1&to=2",
    "export": "?format=csv",
    "langfuse-items": "?datasetName=folder/d0",
    "langfuse-experiments": "?fromStartTime=2020-01-01T00:00:00Z",
    "langfuse-experiment-items": "?fromStartTime=2020-01-01T00:00:00Z&fields=core,io,scores",
}
COVERED = ("api/v1/", "v1/", "api/public/")
WRITING = {"completions", "ws-tickets", "openai-chat", "openai-embeddings", "openai-unknown"} | {
    f"langfuse-{name}" for name in ("prompt-labels", "run-items", "ingestion", "scores", "traces", "unknown")
}
# Not for keys; tests/monitoring/test_history.py asks for it.
FOR_STAFF = {"metrics-history"}


def reading_routes() -> list[tuple[str, str]]:
    """(name, address with the names of its parameters) of every route that can be asked with GET."""
    found = _walk(get_resolver().url_patterns, "")
    return sorted(
        (name, route) for name, route, view in found if route.startswith(COVERED) and _reads(name, view)
    )


def _walk(patterns: Any, prefix: str) -> list[tuple[str, str, Any]]:
    routes = []
    for entry in patterns:
        route = prefix + str(entry.pattern)
        if isinstance(entry, URLResolver):
            routes += _walk(entry.url_patterns, route)
        elif isinstance(entry, URLPattern) and entry.name:
            routes.append((entry.name, route, entry.callback))
    return routes


def _reads(name: str, view: Any) -> bool:
    controller = getattr(view, "view_class", None)
    return name not in WRITING | FOR_STAFF and (controller is None or hasattr(controller, "get"))


def grow(project: Project, since: int, until: int) -> None:
    """For each number one more of everything that is listed; most of it below the first row of each."""
    actor = Actor.system(project)
    for number in range(since, until):
        prompt = create_prompt(
            project, name=f"folder/p{number}", type="text", template="Say {{ q }}", tags=["t"], actor=actor
        ).prompt
        first = Prompt.objects.get(name="folder/p0")
        version = add_version(first, template=f"Say {number}: {{{{ q }}}}", actor=actor)
        move_label(first, label=f"l{number}", version=1, actor=actor)
        move_label(prompt, label="production", version=1, actor=actor)
        assert version
        create_endpoint(project, name=f"m{number}", provider="simulated")
        dataset = create_dataset(project, name=f"folder/d{number}")
        add_cases(dataset, [NewCase(vars={"q": "x"})])
        add_cases(project.datasets.get(name="folder/d0"), [NewCase(vars={"q": str(number)})])
        _run(project, actor)


def grow_elsewhere(client: ApiClient, since: int, until: int) -> None:
    """The same for what a Langfuse SDK makes: items, and cells of the first run over them."""
    for number in range(since, until):
        item = {"datasetName": "folder/d0", "id": f"item {number}", "input": {"q": str(number)}}
        client.post("/api/public/dataset-items", item).expect(200)
        for run in ("elsewhere", f"elsewhere {number}"):
            cell = {"runName": run, "datasetItemId": f"item {number}", "traceId": f"{run} {number}"}
            client.post("/api/public/dataset-run-items", cell).expect(200)


def _run(project: Project, actor: Actor) -> None:
    """An ended run of two columns with a result for each cell."""
    new = NewRun(
        prompts=[PromptRef("folder/p0", version=1), PromptRef("folder/p0", version=2)],
        models=["m0"],
        dataset="folder/d0",
        scorers=[{"type": "contains", "value": "x"}],
    )
    run = start_run(project, new, actor=actor, enqueue=False)
    Run.objects.filter(pk=run.pk).update(
        state="finished", done=run.total, started_at=Now(), finished_at=Now()
    )
    Result.objects.bulk_create(
        Result(run=run, case_id=case, column=column, state=ResultState.PASSED, score=1.0, latency_ms=1.0)
        for case in run.frozen_cases().values_list("pk", flat=True)
        for column in range(run.columns)
    )


def cost(client: ApiClient, address: str) -> int:
    """Queries of one request that finds no copy of the answer; threads of this process may have others."""
    return min(_cost(client, address) for _ in range(2))


def _cost(client: ApiClient, address: str) -> int:
    for cache in caches.all():
        cache.clear()
    clear_copies()
    before = _executed()
    client.get(address).expect(200)
    return _executed() - before


def _executed() -> int:
    """Statements of all threads of this process: async views ask the database from another one."""
    labels = {"alias": "default", "vendor": connection.vendor}
    return int(REGISTRY.get_sample_value("autoforge_django_db_execute_total", labels) or 0)


def addresses(project: Project) -> dict[str, str]:
    """The address of each reading route, with the first of everything in it."""
    runs = list(Run.objects.filter(project=project).order_by("created_at").values_list("pk", flat=True))
    return {name: _filled(name, route, str(runs[0]), str(runs[-1])) for name, route in reading_routes()}


def _filled(name: str, route: str, run: str, other_run: str) -> str:
    of_names = {"prompt": "folder/p0", "model": "m0", "dataset": "folder/d0", "cases": "folder/d0"}
    of_names |= {"langfuse-prompt": "folder/p0", "langfuse-dataset": "folder/d0", "langfuse-run": "folder/d0"}
    own = next((of_names[word] for word in of_names if name.removeprefix("openai-").startswith(word)), "?")
    first = Case.objects.order_by("pk")[0]
    values = {"name": own, "model": own, "run_id": run, "other_id": other_run}
    values |= {"run_name": "elsewhere", "key": key_of(first)}
    for parameter in re.findall(r"<[a-z]+:([a-z_]+)>", route):
        assert values[parameter] != "?", f"{name}: say here what stands for the parameters of {route}"
        route = re.sub(rf"<[a-z]+:{parameter}>", values[parameter], route)
    return f"/{route}{QUERIES.get(name, '')}"


def test_what_is_read_costs_the_same_whatever_there_is(
    project: Project, viewer: ApiClient, api: ApiClient, settings: Any
) -> None:
    settings.API_KEY_CACHE_S = 600
    grow(project, 0, 2)
    grow_elsewhere(api, 0, 2)
    viewer.get("/api/v1/prompts").expect(200)  # from now on this process knows the key
    before = {name: cost(viewer, address) for name, address in addresses(project).items()}
    grow(project, 2, 2 + MANY)
    grow_elsewhere(api, 2, 2 + MANY)
    after = {name: cost(viewer, address) for name, address in addresses(project).items()}
    assert after == before
    assert max(after.values()) <= 8
    lists = {"prompts", "prompt-versions", "prompt-labels", "models", "datasets", "cases", "runs", "results"}
    lists |= {"langfuse-prompts", "langfuse-datasets", "langfuse-items", "langfuse-runs", "langfuse-run"}
    assert after.keys() >= lists | {"report", "compare", "export", "openai-models", "metrics-summary"}
