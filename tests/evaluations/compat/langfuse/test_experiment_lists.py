"""Experiments as SDK 5 reads them, and what clients say of them."""

from typing import Any
from urllib.parse import urlencode

import pytest
from django.db import connection
from django.test import override_settings
from django.test.utils import CaptureQueriesContext

from evaluations.models import Run
from tests.conftest import ApiClient
from tests.evaluations.compat.langfuse.conftest import PUBLIC, as_json, done, fill, only_run, score
from tests.evaluations.compat.langfuse.test_experiments import SCORES, Send, finish, link

pytestmark = pytest.mark.django_db(transaction=True)
LONG_AGO, FAR = "2020-01-01T00:00:00Z", "2100-01-01T00:00:00Z"


def read(api: ApiClient, path: str = "experiments", **query: Any) -> dict[str, Any]:
    return api.get(f"{PUBLIC}/{path}?{urlencode({'fromStartTime': LONG_AGO} | query)}").expect(200)


def ids(found: dict[str, Any]) -> list[str]:
    return [row["id"] for row in found["data"]]


@pytest.fixture
def two_runs(api: ApiClient, items: list[str], send: Send) -> list[str]:
    """`one`, three results of it with a score each, then `two` with one that failed; the items."""
    said = {"description": "Capitals", "metadata": '{"team": "films"}'}
    send(*(done(key, n, id="e1", name="one", **said) for n, key in enumerate(items, start=1)))
    send(done(items[0], 9, "x", id="e2", name="two", o__level="ERROR", o__status_message="no answer"))
    given = [score(n, 0.5, comment="so so") for n in (1, 2, 3)]
    of_run = {"id": "r", "name": "share", "value": 0.75, "datasetRunId": "e1"}
    api.post(SCORES, [*given, of_run]).expect(202)
    return items


def test_sdk_5_lists_experiments(api: ApiClient, two_runs: list[str]) -> None:
    two, one = read(api, fields="core,metadata,scores")["data"]
    assert (one["id"], one["name"], one["itemCount"]) == ("e1", "one", 3)
    assert (one["description"], one["metadata"]) == ("Capitals", {"team": "films"})
    [share] = one["scores"]
    assert (share["name"], share["value"], share["dataType"]) == ("share", 0.75, "NUMERIC")
    assert share["subject"] == {"kind": "experiment", "id": "e1"}
    assert (two["description"], two["metadata"], two["scores"]) == (None, None, [])
    assert not {"metadata", "scores"} & set(read(api)["data"][0])
    first = read(api, limit=1)
    assert ids(first) == ["e2"]
    last = read(api, limit=1, cursor=first["meta"]["cursor"])
    assert (ids(last), last["meta"]) == (["e1"], {})


def test_experiments_are_found_by_what_they_are_called_and_when(api: ApiClient, two_runs: list[str]) -> None:
    run = Run.objects.get(external_id="e1")
    condition = [{"type": "string", "column": "name", "operator": "=", "value": "one"}]
    for query in ({"id": "e1,nobody"}, {"name": "one"}, {"filter": as_json(condition)}):
        assert ids(read(api, **query)) == ["e1"]
    assert ids(read(api, datasetId=f"{run.dataset_id}")) == ["e2", "e1"]
    for query in ({"datasetId": "0,x"}, {"id": "e1", "name": "two"}, {"toStartTime": LONG_AGO}):
        assert ids(read(api, **query)) == []
    finish({"id": run.pk})
    assert ids(read(api, fromStartTime=FAR)) == ["e2"]  # which is still at work


def test_sdk_5_lists_the_items_of_experiments(api: ApiClient, two_runs: list[str]) -> None:
    fields = "core,dataset,io,metadata,itemMetadata,experimentMetadata,scores"
    found = read(api, "experiment-items", experimentId="e1", fields=fields)["data"]
    assert [item["experimentItemId"] for item in found] == two_runs[::-1]
    last = found[-1]
    assert (last["traceId"], last["id"], last["level"]) == (f"{1:032x}", f"{16:016x}", "DEFAULT")
    assert (last["input"], last["output"], last["expectedOutput"]) == ({"q": 0}, "Paris", "0")
    assert (last["experimentName"], last["experimentDescription"]) == ("one", "Capitals")
    assert last["experimentMetadata"] == {"team": "films"}
    [given] = last["scores"]
    assert (given["id"], given["value"], given["comment"]) == ("s1", 0.5, "so so")
    [failed] = read(api, "experiment-items", experimentName="two")["data"]
    assert failed["level"] == "ERROR"
    assert "output" not in failed and failed["experimentDatasetId"]
    assert len(read(api, "experiment-items", experimentItemId=two_runs[0])["data"]) == 2
    assert ids(read(api, "experiment-items", fromStartTime=FAR)) == []
    page = read(api, "experiment-items", limit=3)
    assert len(ids(read(api, "experiment-items", limit=3, cursor=page["meta"]["cursor"]))) == 1


@override_settings(API_KEY_CACHE_S=60)
def test_a_list_takes_as_many_queries_whatever_its_size(api: ApiClient, two_runs: list[str]) -> None:
    everything = "core,dataset,io,metadata,itemMetadata,experimentMetadata,scores"
    for path, fields in (("experiments", "core,metadata,scores"), ("experiment-items", everything)):
        counts = []
        for query in ({"limit": 1}, {"limit": 1, "fields": fields}, {"fields": fields}, {}):
            with CaptureQueriesContext(connection) as queries:
                read(api, path, **query)
            counts.append(len(queries))
        assert len(set(counts)) == 1, (path, counts)


def test_strangers_see_no_experiment_and_wrong_questions_are_refused(
    api: ApiClient, stranger: ApiClient, viewer: ApiClient, two_runs: list[str]
) -> None:
    for path, of_one in (("experiments", {"id": "e1"}), ("experiment-items", {"experimentId": "e1"})):
        assert read(stranger, path) == read(stranger, path, **of_one) == {"data": [], "meta": {}}
        assert read(viewer, path)["data"]
        for wrong in (
            "",
            "fromStartTime=yesterday",
            f"fromStartTime={LONG_AGO}&limit=101",
            f"fromStartTime={LONG_AGO}&cursor=x",
            f"fromStartTime={LONG_AGO}&fields=all",
            "fromStartTime=0001-01-01T00:00:00%2B14:00",
            f"fromStartTime={LONG_AGO}&filter=[[",
            f"fromStartTime={LONG_AGO}&filter=" + r'[{"column":"datasetId","operator":"=","value":"\u0000"}]',
            f"fromStartTime={LONG_AGO}&filter="
            '[{"type":"string","column":"secret","operator":"=","value":"x"}]',
        ):
            answer = api.get(f"{PUBLIC}/{path}?{wrong}").expect(400)
            assert set(answer) == {"message", "error"}
        api.post(f"{PUBLIC}/{path}", {}).expect(405)


def test_what_sdk_3_and_4_say_of_a_run_is_shown(api: ApiClient, items: list[str]) -> None:
    link(api, items[0], 1, runDescription="Capitals", metadata={"team": "films"}).expect(200)
    link(api, items[1], 2).expect(200)
    link(api, items[2], 3, metadata=["any", "JSON"]).expect(200)
    shown = api.get(f"{PUBLIC}/datasets/capitals/runs/run%201").expect(200)
    [listed] = api.get(f"{PUBLIC}/datasets/capitals/runs").expect(200)["data"]
    for run in (shown, listed):
        assert (run["description"], run["metadata"]) == ("Capitals", ["any", "JSON"])
    assert read(api, fields="metadata")["data"][0]["metadata"] == {"metadata": ["any", "JSON"]}
    too_much = link(api, items[0], 4, metadata={"x": "y" * 70_000}).expect(400)
    assert "at most 65,536 bytes" in too_much["message"]


@pytest.mark.parametrize("metadata", ['{"a": "\\u0000"}', '{"a": ', "[1]", as_json({"x": "y" * 70_000})])
def test_metadata_that_cannot_be_kept_costs_no_result(
    api: ApiClient, items: list[str], send: Send, metadata: str
) -> None:
    send(done(items[0], 1, metadata=metadata))
    assert only_run(api)["done"] == 1
    assert read(api, fields="metadata")["data"][0]["metadata"] is None


def test_ingestion_takes_what_sdk_3_sends_at_once(api: ApiClient, send: Send) -> None:
    keys = fill(api, count=4)
    send(*(done(key, n, id="e1") for n, key in enumerate(keys, start=1)))
    bodies = [score(n, 1.0, comment="x" * 990_000) for n in range(1, 4)]
    batch = [{"id": body["id"], "type": "score-create", "body": body} for body in bodies]
    assert len(api.post(f"{PUBLIC}/ingestion", {"batch": batch}).expect(207)["successes"]) == 3
    assert only_run(api)["passed"] == 4
    too_much = {"batch": [{"id": "x", "type": "x", "body": "x" * 9 * 2**20}]}
    assert api.post(f"{PUBLIC}/ingestion", too_much).expect(413)["error"] == "PayloadTooLargeError"
