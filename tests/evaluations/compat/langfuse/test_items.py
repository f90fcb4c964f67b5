"""Langfuse's data sets and items: our data sets and cases, whose items may change."""

from typing import Any

import pytest

from tests.conftest import ApiClient
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
