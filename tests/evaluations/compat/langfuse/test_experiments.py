"""Experiments that Langfuse's SDKs execute: our runs, live while news come, with scores at any time."""

import base64
import gzip
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
from django.db import connection, connections
from django.test import Client, override_settings
from django.test.utils import CaptureQueriesContext
from google.protobuf.json_format import MessageToDict

from autoforge.models import Project, Role
from evaluations import executor
from evaluations.events import ResultRecorded, RunEnded, RunProgressed
from evaluations.models import PendingScore, Run, RunWorker
from evaluations.services import verdicts
from tests.conftest import ApiClient, client_of
from tests.evaluations.compat.langfuse.conftest import (
    PUBLIC,
    TRACES,
    as_json,
    done,
    encoded,
    experiment,
    fill,
    only_run,
    results_of,
    score,
    span,
)
from tests.evaluations.conftest import experiment as run_request
from tests.evaluations.conftest import wait_for_end

pytestmark = pytest.mark.django_db(transaction=True)
SCORES = f"{PUBLIC}/scores"
Send = Callable[..., Any]


def link(api: ApiClient, item: str, trace: int, run: str = "run 1", **more: Any) -> Any:
    """As SDK 3 and 4 do when a task begins."""
    body = {"runName": run, "datasetItemId": item, "traceId": f"{trace:032x}"}
    return api.post(f"{PUBLIC}/dataset-run-items", body | {"observationId": f"{trace * 16:016x}"} | more)


def finish(run: dict[str, Any]) -> None:
    """What the look-out does once nothing was heard for long."""
    long_ago = "2020-01-01T00:00:00Z"
    executor.take_up_runs()
    Run.objects.filter(pk=run["id"]).update(enqueued_at=long_ago)
    RunWorker.objects.filter(run=run["id"]).update(heartbeat_at=long_ago)
    executor.take_up_runs()
    assert executor.wait_idle(20)


def test_sdk_5_spans_become_a_run_told_live(
    api: ApiClient, items: list[str], send: Send, heard: list[Any]
) -> None:
    call = {
        "o__type": "generation",
        "o__model.name": "gpt-x",
        "o__usage_details": '{"input": 7, "output": 3}',
        "o__cost_details": '{"total": 0.5}',
    }
    for _ in range(2):  # a batch that is sent again counts nothing twice
        send(span(1, 7, 16, **experiment(items[0], 16), **call))
    assert (only_run(api)["state"], only_run(api)["done"]) == ("running", 0)
    for _ in range(2):
        answer = send(done(items[0], 1), done(items[1], 2, "Rome"))
        assert (answer.expect(200), answer.headers["Content-Type"]) == (b"", "application/x-protobuf")
    run = only_run(api)
    assert (run["name"], run["total"], run["done"], run["passed"]) == ("run 1", 3, 2, 2)
    assert run["columns"] == [{"prompt": "run 1", "version": None, "model": "gpt-x"}]
    first, second = results_of(api, run)
    assert (first["output"], first["tokens"], first["cost_usd"]) == ("Paris", {"input": 7, "output": 3}, 0.5)
    assert (second["output"], second["tokens"]) == ("Rome", {"input": None, "output": None})
    assert first["latency_ms"] == pytest.approx(5)
    recorded = [event for event in heard if isinstance(event, ResultRecorded)]
    assert [row["case"] for event in recorded for row in event.results] == [first["case"], second["case"]]
    assert [event.done for event in heard if isinstance(event, RunProgressed)][-1] == 2
    finish(run)
    assert only_run(api)["state"] == "finished"
    assert isinstance(heard[-1], RunEnded)


def test_scores_find_their_result_before_and_after_it(
    api: ApiClient, items: list[str], send: Send, heard: list[Any]
) -> None:
    early = score(1, 1.0, comment="good")
    assert api.post(SCORES, [early, early | {"id": "run", "traceId": None, "datasetRunId": "e1"}]).expect(
        202
    ) == {"message": "Accepted"}
    send(done(items[0], 1), done(items[1], 2))
    late = {"id": "x", "type": "score-create", "timestamp": "", "body": score(2, 0.25, observationId=None)}
    dropped = {"id": "y", "type": "trace-create", "timestamp": "", "body": {"id": "t"}}
    bad = {"id": "z", "type": "score-create", "timestamp": "", "body": {"name": "n"}}
    batch = api.post(f"{PUBLIC}/ingestion", {"batch": [late, dropped, bad]}).expect(207)
    assert [row["id"] for row in batch["successes"]] == ["x", "y"]
    assert [(row["id"], row["status"]) for row in batch["errors"]] == [("z", 400)]
    run = only_run(api)
    assert (run["passed"], run["failed"]) == (1, 1)
    assert [row["value"] for row in run["scores"]] == [1.0]
    passed, failed = results_of(api, run)
    [row] = passed["scores"]
    assert (row["scorer"], row["value"], row["passed"], row["reason"]) == ("right", 1.0, True, "good")
    assert (failed["state"], failed["score"]) == ("failed", 0.25)
    told = heard[-2]
    assert (told.results[0]["state"], heard[-1].failed) == ("failed", 1)
    api.post(SCORES, [score(2, 0.75)]).expect(202)
    assert (results_of(api, run)[1]["score"], only_run(api)["passed"]) == (0.75, 2)
    report = api.get(f"/api/v1/runs/{run['id']}/report").expect(200)["columns"][0]
    assert report["metrics"]["right"] == {"mean": 0.875, "count": 2}
    assert not PendingScore.objects.exists()


def test_verdicts_by_the_kind_of_a_score(api: ApiClient, items: list[str], send: Send) -> None:
    send(done(items[0], 1))
    given = [
        score(1, True, id="a", name="bool", dataType="BOOLEAN"),
        score(1, 7.5, id="b", name="stars"),
        score(1, "fine", id="c", name="mood", dataType="CATEGORICAL", comment="really"),
    ]
    answer = api.post(SCORES, [*given, {"name": "n"}, {"name": "s", "value": 1, "sessionId": "x"}]).expect(
        207
    )
    assert (answer["accepted"], answer["rejected"], len(answer["errors"])) == (4, 1, 1)
    [result] = results_of(api, only_run(api))
    rows = [(row["scorer"], row["value"], row["passed"], row["reason"]) for row in result["scores"]]
    assert rows == [("bool", 1.0, True, ""), ("stars", 7.5, None, ""), ("mood", None, None, "fine: really")]
    assert (result["state"], result["score"]) == ("passed", 1.0)
    api.post(SCORES, score(1, 0, id="a", name="bool", dataType="BOOLEAN")).expect(200)
    assert results_of(api, only_run(api))[0]["state"] == "failed"


def test_sdk_4_links_its_items_first_and_joins_the_same_run(
    api: ApiClient, items: list[str], send: Send
) -> None:
    linked = link(api, items[0], 1).expect(200)
    assert link(api, items[0], 1).expect(200) == linked
    external_id = linked["datasetRunId"]
    assert (linked["datasetRunName"], linked["traceId"]) == ("run 1", f"{1:032x}")
    send(span(1, 16, **{"o__output": "Paris"}), span(1, 15, **{"o__output": "not this"}))
    send(done(items[1], 2, id=external_id), span(9, 9, **{"o__output": "of no experiment"}))
    run = only_run(api)
    assert [result["output"] for result in results_of(api, run)] == ["Paris", "Paris"]
    shown = api.get(f"{PUBLIC}/datasets/capitals/runs/run%201").expect(200)
    assert [item["datasetItemId"] for item in shown["datasetRunItems"]] == items[:2]
    [listed] = api.get(f"{PUBLIC}/datasets/capitals/runs").expect(200)["data"]
    assert (listed["id"], listed["name"]) == (external_id, "run 1")
    link(api, items[2], 1).expect(409)
    link(api, "nothing", 3).expect(404)
    link(api, items[0], 1, observationId="x" * 65).expect(400)


def test_a_name_used_again_repeats_and_opens_the_run_again(
    api: ApiClient, items: list[str], send: Send
) -> None:
    send(*(done(key, number) for number, key in enumerate(items, start=1)))
    finish(only_run(api))
    send(done(items[0], 4))
    run = only_run(api)
    assert (run["state"], run["repeats"], run["total"], run["done"]) == ("running", 2, 6, 4)
    assert results_of(api, run)[-1]["repeat"] == 1
    assert api.post(f"/api/v1/runs/{run['id']}/cancel").expect(200)["state"] == "cancelled"
    send(done(items[1], 5))
    assert (only_run(api)["state"], only_run(api)["done"]) == ("cancelled", 5)
    for action in ("resume", "retry-errors"):
        assert "elsewhere" in api.post(f"/api/v1/runs/{run['id']}/{action}").expect(409)["detail"]


def test_two_experiments_can_be_compared_and_deleted(api: ApiClient, items: list[str], send: Send) -> None:
    for number, (key, name) in enumerate([("a", "one"), ("b", "two")]):
        spans = [done(item, 10 * number + i, id=key, name=name) for i, item in enumerate(items, start=1)]
        send(*spans)
        api.post(SCORES, [score(10 * number + i, float(number or i == 1)) for i in (1, 2, 3)]).expect(202)
    second, first = api.get("/api/v1/runs").expect(200)["items"]
    found = api.get(f"/api/v1/runs/{first['id']}/compare/{second['id']}").expect(200)
    assert (found["pairs"], found["only_b"], found["both_passed"]) == (3, 2, 1)
    assert [side["version"] for side in (found["a"], found["b"])] == [None, None]
    api.delete(f"{PUBLIC}/datasets/capitals/runs/two").expect(200)
    assert only_run(api)["id"] == first["id"]


def test_a_task_that_failed_is_an_error(api: ApiClient, items: list[str], send: Send) -> None:
    failed = {"o__level": "ERROR", "o__status_message": "no\0 answer"}
    send(done(items[0], 1, "Error: no answer", **failed))
    [result] = results_of(api, only_run(api))
    assert (result["state"], result["error"], result["output"]) == ("error", "no\ufffd answer", "")
    api.post(SCORES, [score(1, 1.0)]).expect(202)
    assert only_run(api)["errors"] == 1


def test_the_column_is_named_after_the_stored_prompt(api: ApiClient, items: list[str], send: Send) -> None:
    prompt = {"name": "greet", "prompt": "Hello {{q}}", "labels": []}
    api.post(f"{PUBLIC}/v2/prompts", prompt).expect(201)
    call = {"o__type": "generation", "o__prompt.name": "greet", "o__prompt.version": 1}
    send(span(1, 3, 16, ms=1, **experiment(items[0], 16), **call), done(items[0], 1))
    assert only_run(api)["columns"] == [{"prompt": "greet", "version": 1, "model": "langfuse"}]


def test_otlp_in_json_means_the_same(api: ApiClient, items: list[str]) -> None:
    def with_hex_ids(value: Any) -> Any:
        if isinstance(value, list):
            return [with_hex_ids(item) for item in value]
        if not isinstance(value, dict):
            return value
        ids = ("traceId", "spanId", "parentSpanId")
        return {k: base64.b64decode(v).hex() if k in ids else with_hex_ids(v) for k, v in value.items()}

    body = as_json(with_hex_ids(MessageToDict(encoded([done(items[0], 1)]))))
    api.request("POST", TRACES, body.encode()).expect(200)
    api.post(SCORES, [score(1, 0.0)]).expect(202)
    assert only_run(api)["failed"] == 1


@pytest.mark.skipif(connection.vendor == "sqlite", reason="its test database has one writer at a time")
def test_workers_of_one_experiment_share_its_run(project: Project, api: ApiClient, send: Send) -> None:
    keys = fill(api, count=20)
    barrier = Barrier(4)

    def work(worker: int) -> None:
        """Spans and scores of every fourth item, in no order, each twice."""
        client = client_of(project, Role.EDITOR)
        packed = client.with_headers(Content_Encoding="gzip")
        try:
            barrier.wait()
            for number in range(worker, 20, 4):
                send(done(keys[number], number + 1), client=packed).expect(200)
                client.post(SCORES, [score(number + 1, float(number % 2))]).expect(202)
                client.post(SCORES, [score((number + 5) % 20 + 1, 1.0, id=f"x{number}")]).expect(202)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    run = only_run(api)
    assert (run["done"], run["total"], run["passed"], run["failed"]) == (20, 20, 10, 10)
    assert [len(result["scores"]) for result in results_of(api, run)] == [2] * 20
    assert not PendingScore.objects.exists()


@override_settings(API_KEY_CACHE_S=60)  # or a slow machine looks the key up once more
def test_a_batch_takes_as_many_queries_whatever_its_size(api: ApiClient, send: Send) -> None:
    keys = fill(api, count=30)
    send(done(keys[0], 1))

    def queries(first: int, count: int) -> list[int]:
        numbers = range(first, first + count)
        with CaptureQueriesContext(connection) as spans:
            send(*(done(keys[number], number + 1) for number in numbers)).expect(200)
        with CaptureQueriesContext(connection) as scores:
            api.post(SCORES, [score(number + 1, 0.0) for number in numbers]).expect(202)
        return [len(spans), len(scores)]

    assert queries(1, 2) == queries(3, 25)


def test_an_experiment_has_one_data_set(api: ApiClient, items: list[str], send: Send) -> None:
    [other] = fill(api, "others", 1)
    send(done(items[0], 1))
    assert b"over the data set 'capitals'" in send(done(other, 2)).expect(200)
    assert only_run(api)["done"] == 1


def test_the_desk_shows_a_run_that_is_executed_elsewhere(
    api: ApiClient, items: list[str], send: Send, admin_client: Client
) -> None:
    send(done(items[0], 1))
    api.post(SCORES, [score(1, "fine")]).expect(202)
    run = only_run(api)
    [result] = results_of(api, run)
    for path in (
        f"run/{run['id']}/change",
        f"run/{run['id']}/compare",
        f"result/{result['id']}/change",
        "result",
    ):
        page = admin_client.get(f"/admin/evaluations/{path}/").content.decode()
        assert "run 1" in page
        assert "vNone" not in page
    assert admin_client.get(f"/admin/evaluations/run/add/?from={run['id']}").status_code == 200
    finish(run)
    page = admin_client.get(f"/admin/evaluations/run/{run['id']}/change/").content.decode()
    assert 'id="resume"' not in page


def test_other_projects_and_viewers_change_nothing(
    api: ApiClient, viewer: ApiClient, stranger: ApiClient, items: list[str], send: Send
) -> None:
    packed = {"Content_Encoding": "gzip"}
    send(done(items[0], 1), client=stranger.with_headers(**packed)).expect(200)
    send(done(items[0], 1), client=viewer.with_headers(**packed)).expect(403)
    assert not Run.objects.exists()
    send(done(items[0], 1))
    viewer.post(SCORES, [score(1, 0.0)]).expect(403)
    viewer.post(f"{PUBLIC}/ingestion", {"batch": []}).expect(403)
    link(viewer, items[1], 2).expect(403)
    link(stranger, items[1], 2).expect(404)
    stranger.post(SCORES, [score(1, 0.0), score(1, 0.0, id="r", datasetRunId="e1")]).expect(202)
    for method, path in (("GET", "runs"), ("GET", "runs/run 1"), ("DELETE", "runs/run 1")):
        stranger.request(method, f"{PUBLIC}/datasets/capitals/{path}").expect(404)
    viewer.delete(f"{PUBLIC}/datasets/capitals/runs/run 1").expect(403)
    run = only_run(viewer)
    assert (run["passed"], run["failed"], run["scores"]) == (1, 0, [])
    # The same ids in another project are another run.
    fill(stranger, "capitals")
    send(done(items[0], 1), client=stranger.with_headers(**packed))
    assert only_run(stranger)["failed"] == 1
    assert only_run(stranger)["id"] != run["id"]


def test_batches_are_bounded_and_must_be_otlp(api: ApiClient, items: list[str], send: Send) -> None:
    packed = api.with_headers(Content_Encoding="gzip")

    def post(client: ApiClient, body: bytes, kind: str = "application/x-protobuf") -> Any:
        return client.request("POST", TRACES, body, content_type=kind)

    with override_settings(MAX_TRACES_BYTES=100_000):
        assert post(packed, gzip.compress(b"\0" * 1_000_000)).expect(413)["error"] == "PayloadTooLargeError"
    post(packed, b"no gzip").expect(400)
    post(api, b"\xff\xff").expect(400)
    post(api, b"{", "application/json").expect(400)
    post(api, b"", "text/plain").expect(415)
    post(api.with_headers(Content_Encoding="br"), b"").expect(415)
    api.post(SCORES, [{}] * 1_001).expect(400)
    api.post(SCORES, [score(1, 1, id="x" * 201)]).expect(207)
    send(*(done(items[0], trace) for trace in range(1, 101))).expect(200)
    assert b"at most 100 times" in send(done(items[0], 300)).expect(200)
    assert only_run(api)["done"] == 100


def test_scores_of_ordinary_traces_leave_room_for_those_of_results(
    api: ApiClient, items: list[str], send: Send, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verdicts, "MAX_PENDING", 3)
    send(done(items[0], 1))
    api.post(SCORES, [score(n, 0.0) for n in (8, 9, 10)]).expect(202)
    link(api, items[1], 2).expect(200)
    of_run = score(1, 1.0, id="run", datasetRunId="e1")
    answer = api.post(SCORES, [score(7, 0.0), score(1, 0.0), score(2, 0.0), of_run]).expect(207)
    assert (answer["accepted"], answer["rejected"]) == (3, 1)
    assert "wait for their results" in answer["errors"][0]["message"]
    assert "wait for their results" in api.post(SCORES, score(7, 0.0)).expect(400)["message"]
    events = [{"id": f"e{n}", "type": "score-create", "body": score(n, 0.0)} for n in (7, 1)]
    batch = api.post(f"{PUBLIC}/ingestion", {"batch": events}).expect(207)
    assert [row["id"] for row in batch["successes"]] == ["e1"]
    assert [(row["id"], row["status"]) for row in batch["errors"]] == [("e7", 400)]
    send(done(items[1], 2))
    run = only_run(api)
    assert (run["failed"], len(run["scores"])) == (2, 1)


def test_results_keep_their_item_when_it_changes(api: ApiClient, send: Send) -> None:
    fill(api, count=0)
    api.post(f"{PUBLIC}/dataset-items", {"datasetName": "capitals", "id": "i", "input": "Hi"}).expect(200)
    send(done("i", 1))
    changed = {"datasetName": "capitals", "id": "i", "input": {"q": 1}}
    api.post(f"{PUBLIC}/dataset-items", changed).expect(200)
    send(done("i", 2))
    [first, second] = api.get(f"{PUBLIC}/datasets/capitals/runs/run%201").expect(200)["datasetRunItems"]
    assert first["datasetItemId"] == second["datasetItemId"] == "i"
    query = "fromStartTime=2020-01-01T00:00:00Z&experimentItemId=i&fields=core,io"
    found = api.get(f"{PUBLIC}/experiment-items?{query}").expect(200)["data"]
    assert [item["input"] for item in found] == [{"q": 1}, "Hi"]
    assert api.get(f"{PUBLIC}/dataset-items/i").expect(200)["input"] == {"q": 1}
    assert len(api.get(f"{PUBLIC}/dataset-items?datasetName=capitals").expect(200)["data"]) == 1


def test_a_run_without_a_name_is_called_by_its_id(
    api: ApiClient, items: list[str], prompt: Any, endpoint: Any
) -> None:
    started = api.post("/api/v1/runs", run_request(dataset="capitals")).expect(201)
    wait_for_end(api, started["id"])
    [listed] = api.get(f"{PUBLIC}/datasets/capitals/runs").expect(200)["data"]
    assert api.get(f"{PUBLIC}/datasets/capitals/runs/{listed['name']}").expect(200)["id"] == started["id"]
    query = f"fromStartTime=2020-01-01T00:00:00Z&name={listed['name']}"
    assert len(api.get(f"{PUBLIC}/experiments?{query}").expect(200)["data"]) == 1
