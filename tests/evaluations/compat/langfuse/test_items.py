"""Langfuse's data sets and items: our data sets and cases, whose items may change."""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connection, connections, transaction

from autoforge.models import Project, Role
from evaluations.models import Case, Dataset
from evaluations.services import describe_dataset
from tests.conftest import ApiClient, client_of
from tests.evaluations.compat.langfuse.conftest import PUBLIC, fill
from tests.evaluations.conftest import experiment, wait_for_end

pytestmark = pytest.mark.django_db(transaction=True)
DATASETS, ITEMS = f"{PUBLIC}/v2/datasets", f"{PUBLIC}/dataset-items"


def put(api: ApiClient, **fields: Any) -> Any:
    return api.post(ITEMS, {"datasetName": "capitals"} | fields).expect(200)


def listed(api: ApiClient) -> list[Any]:
    page = api.get(f"{ITEMS}?datasetName=capitals&page=1&limit=50").expect(200)
    return [(item["id"], item["input"], item["expectedOutput"]) for item in page["data"]]


def test_a_data_set_is_ours_and_may_be_described_anew(api: ApiClient) -> None:
    made = api.post(DATASETS, {"name": "eu/capitals", "description": "d", "metadata": {"a": 1}}).expect(200)
    again = api.post(DATASETS, {"name": "eu/capitals", "description": "new", "metadata": None}).expect(200)
    assert (again["id"], again["description"], again["metadata"]) == (made["id"], "new", {"a": 1})
    assert api.get(f"{DATASETS}/eu%2Fcapitals").expect(200) == again
    assert [row["name"] for row in api.get(f"{DATASETS}?limit=5").expect(200)["data"]] == ["eu/capitals"]
    assert api.get("/api/v1/datasets/eu/capitals").expect(200)["description"] == "new"
    assert api.get(f"{DATASETS}/none").expect(404)["message"] == "Dataset not found"
    api.post(DATASETS, {"name": "x", "inputSchema": {}}).expect(400)


def test_an_item_is_a_case_of_any_input(api: ApiClient, items: list[str]) -> None:
    plain = put(api, input="Hello", expectedOutput=None, metadata={"k": 1}, sourceTraceId="t")
    assert (plain["input"], plain["metadata"], plain["sourceTraceId"]) == ("Hello", {"k": 1}, "t")
    assert plain["mediaReferences"] == []
    cases = api.get("/api/v1/datasets/capitals/cases").expect(200)["items"]
    assert [case["vars"] for case in cases] == [{"q": 0}, {"q": 1}, {"q": 2}, {"input": "Hello"}]
    native = api.post("/api/v1/datasets/capitals/cases", {"vars": {"q": 9}, "expected": "9"}).expect(201)
    assert listed(api)[-1] == (f"case-{native['id']}", {"q": 9}, "9")
    assert put(api, id=f"case-{native['id']}", expectedOutput="nine")["input"] == {"q": 9}
    assert [row[2] for row in listed(api)] == ["0", "1", "2", None, "nine"]


def test_a_changed_item_is_a_new_case_and_runs_keep_the_old_one(
    api: ApiClient, items: list[str], prompt: Any, endpoint: Any
) -> None:
    before = api.post("/api/v1/runs", experiment(dataset="capitals")).expect(201)
    put(api, id=items[0], input={"q": 0}, expectedOutput="0", metadata=None)
    assert api.get("/api/v1/datasets/capitals").expect(200)["cases"] == 3
    put(api, id=items[0], expectedOutput="zero")
    put(api, id=items[1], status="ARCHIVED")
    assert listed(api) == [(items[2], {"q": 2}, "2"), (items[0], {"q": 0}, "zero")]
    assert api.get("/api/v1/datasets/capitals").expect(200)["cases"] == 2
    after = api.post("/api/v1/runs", experiment(dataset="capitals")).expect(201)
    assert (before["total"], after["total"]) == (3, 2)
    assert [wait_for_end(api, run["id"])["done"] for run in (before, after)] == [3, 2]
    assert api.get(f"{ITEMS}/{items[1]}").expect(200)["status"] == "ARCHIVED"
    assert put(api, id=items[1], status="ACTIVE")["status"] == "ACTIVE"
    api.delete(f"{ITEMS}/{items[0]}").expect(200)
    assert [row[0] for row in listed(api)] == [items[2], items[1]]


def test_an_item_belongs_to_one_data_set_and_project(
    api: ApiClient, items: list[str], viewer: ApiClient, stranger: ApiClient
) -> None:
    fill(api, "others", 1)
    taken = api.post(ITEMS, {"datasetName": "others", "id": items[0], "input": {}}).expect(409)
    assert taken["error"] == "LangfuseConflictError"
    for client, status in ((viewer, 403), (stranger, 404)):
        client.post(ITEMS, {"datasetName": "capitals", "id": items[0], "input": {}}).expect(status)
        client.delete(f"{ITEMS}/{items[0]}").expect(status)
    viewer.post(DATASETS, {"name": "capitals", "description": "mine"}).expect(403)
    assert stranger.get(ITEMS).expect(200)["data"] == stranger.get(DATASETS).expect(200)["data"] == []
    stranger.get(f"{ITEMS}/{items[0]}").expect(404)
    stranger.get(f"{ITEMS}/case-1").expect(404)
    stranger.get(f"{ITEMS}?datasetName=capitals").expect(404)
    fill(stranger, "capitals", 1)
    assert viewer.get(f"{ITEMS}/{items[0]}").expect(200)["input"] == {"q": 0}
    assert len(listed(viewer)) == 3


def test_bad_items_are_refused(api: ApiClient, items: list[str]) -> None:
    for fields in ({"id": "x" * 201}, {"metadata": "text"}, {"status": "GONE"}, {"sourceTraceId": "x" * 201}):
        api.post(ITEMS, {"datasetName": "capitals", "input": {}} | fields).expect(400)
    api.get(f"{ITEMS}?datasetName=capitals&version=2026-01-01T00:00:00Z").expect(400)


def test_an_items_assertions_stay_with_it(api: ApiClient, items: list[str]) -> None:
    scorers = [{"type": "contains", "value": "9"}]
    native = api.post("/api/v1/datasets/capitals/cases", {"vars": {"q": 9}, "scorers": scorers}).expect(201)
    key = f"case-{native['id']}"
    put(api, id=key, expectedOutput="nine")
    assert api.get("/api/v1/datasets/capitals/cases").expect(200)["items"][-1]["scorers"] == scorers
    api.delete(f"{ITEMS}/{key}").expect(200)
    put(api, id=key, status="ACTIVE")
    [case] = [
        row for row in api.get("/api/v1/datasets/capitals/cases").expect(200)["items"] if row["scorers"]
    ]
    assert (case["expected"], case["scorers"]) == ("nine", scorers)


def test_every_change_of_an_item_counts(api: ApiClient, items: list[str]) -> None:
    put(api, id=items[0], input={"q": True})
    put(api, id=items[0], input={"q": 1})
    assert put(api, id=items[0], input={"q": True})["input"] == {"q": True}
    assert api.get(f"{ITEMS}/{items[0]}").expect(200)["input"]["q"] is True
    cases = Case.objects.count()
    assert put(api, id=items[0], input={"q": True}, sourceTraceId="t")["sourceTraceId"] == "t"
    assert put(api, id=items[0], sourceObservationId="o")["sourceTraceId"] == "t"
    shown = api.get(f"{ITEMS}/{items[0]}").expect(200)
    assert (shown["sourceTraceId"], shown["sourceObservationId"]) == ("t", "o")
    assert Case.objects.count() == cases, "who is told of its source needs no new case"


def test_words_about_a_data_set_are_not_lost(api: ApiClient, items: list[str]) -> None:
    stale = Dataset.objects.get(name="capitals")
    api.post(DATASETS, {"name": "capitals", "metadata": {"a": 1}}).expect(200)
    describe_dataset(stale, description="new", metadata=None)
    shown = api.get(f"{DATASETS}/capitals").expect(200)
    assert (shown["description"], shown["metadata"]) == ("new", {"a": 1})


@pytest.mark.skipif(connection.vendor == "sqlite", reason="it has one writer at a time")
def test_two_who_change_one_item_lose_nothing(project: Project, api: ApiClient, items: list[str]) -> None:
    def work(change: dict[str, Any]) -> None:
        try:
            client_of(project, Role.EDITOR).post(ITEMS, {"datasetName": "capitals"} | change).expect(200)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1) as pool, transaction.atomic():
        put(api, id=items[0], metadata={"first": True})
        second = pool.submit(work, {"id": items[0], "expectedOutput": "second"})
        wait_until_somebody_waits()
    second.result(20)
    shown = api.get(f"{ITEMS}/{items[0]}").expect(200)
    assert (shown["metadata"], shown["expectedOutput"]) == ({"first": True}, "second")


def wait_until_somebody_waits() -> None:
    """For a lock of this transaction."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
            if cursor.fetchone()[0]:
                return
        time.sleep(0.02)
    raise AssertionError("nobody waits")
