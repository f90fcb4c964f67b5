"""What spans of Langfuse's SDKs may hold beside the usual: data of their own, odd values, odd names."""

import gzip
from typing import Any

import pytest
from django.db import connection
from django.test import override_settings
from django.test.utils import CaptureQueriesContext

from evaluations.models import ExternalCase, Run
from tests.conftest import ApiClient
from tests.evaluations.compat.langfuse.conftest import (
    PUBLIC,
    TRACES,
    done,
    encoded,
    experiment,
    only_run,
    results_of,
    span,
)
from tests.evaluations.compat.langfuse.test_experiments import Send, link

pytestmark = pytest.mark.django_db(transaction=True)


def test_local_data_gets_a_data_set_of_its_own(api: ApiClient, send: Send) -> None:
    def local(trace: int, question: str) -> dict[str, Any]:
        said = {"o__input": question, "o__metadata.experiment_name": "my: test", "o__output": "out"}
        of = experiment(
            question, trace * 16, id=f"e{trace}", name="my: test - 2026-11-25T19:00:00Z", dataset__id=""
        )
        return span(trace, trace * 16, **of, item__expected_output='{"a": 1}', **said)

    send(local(1, "What?"))
    send(local(2, '{"x": 1}'))
    run = only_run(api)
    assert (run["dataset"], run["done"], run["total"]) == ("experiments/my- test", 2, 2)
    cases = api.get("/api/v1/datasets/experiments/my- test/cases").expect(200)["items"]
    assert [case["vars"] for case in cases] == [{"input": "What?"}, {"x": 1}]
    assert cases[0]["expected"] == {"a": 1}


@pytest.mark.parametrize("name", ["import", "cases"])
def test_local_data_may_be_called_as_a_route_is(
    api: ApiClient, items: list[str], send: Send, name: str
) -> None:
    said = {"o__input": "What?", "o__metadata.experiment_name": name, "o__output": "out"}
    of = experiment("hash", 32, id="e2", name=name, dataset__id="")
    send(span(2, 32, **of, **said), done(items[0], 1)).expect(200)
    assert Run.objects.filter(done=1).count() == 2
    api.get(f"/api/v1/datasets/experiments/{name}-").expect(200)


@override_settings(API_KEY_CACHE_S=60)
def test_local_data_takes_as_many_queries_whatever_its_size(api: ApiClient, send: Send) -> None:
    def local(number: int, question: str) -> dict[str, Any]:
        of = experiment(f"hash {number}", number * 16, name="mine", dataset__id="")
        return span(number, number * 16, **of, o__input=question, o__output="out")

    def queries(first: int, count: int) -> int:
        with CaptureQueriesContext(connection) as found:
            send(*(local(number, f"{number}?") for number in range(first, first + count))).expect(200)
        return len(found)

    queries(1, 1)
    assert queries(2, 2) == queries(4, 25)
    send(local(40, "fine?"), local(41, '{"a": "\\u0000"}'), local(42, "fine, too?")).expect(200)
    assert only_run(api)["done"] == 30


@pytest.mark.parametrize(
    "cost", ['{"total": "1e9999999"}', '{"a": "1e999999", "b": "1e999999"}', '{"a": "sNaN"}']
)
def test_odd_attributes_of_a_call_cost_no_result(
    api: ApiClient, items: list[str], send: Send, cost: str
) -> None:
    call = {
        "o__type": "generation",
        "o__cost_details": cost,
        "o__usage_details": '{"input": true}',
        "o__prompt.version": True,
    }
    send(span(1, 3, 16, ms=1, **experiment(items[0], 16), **call)).expect(200)
    send(done(items[0], 1)).expect(200)
    [result] = results_of(api, only_run(api))
    assert (result["cost_usd"], result["tokens"]) == (None, {"input": None, "output": None})


def test_spans_whose_ids_are_not_otlps_are_dropped(api: ApiClient, items: list[str]) -> None:
    batch = encoded([done(items[0], 1), done(items[1], 2), done(items[2], 3)])
    first, second, _ = batch.resource_spans[0].scope_spans[0].spans
    first.trace_id, second.span_id = b"x" * 40, b"x" * 7
    packed = gzip.compress(batch.SerializeToString())
    client = api.with_headers(Content_Encoding="gzip")
    client.request("POST", TRACES, packed, content_type="application/x-protobuf").expect(200)
    [result] = results_of(api, only_run(api))
    assert result["case"] == ExternalCase.objects.get(key=items[2]).case_id


@pytest.mark.parametrize("name", ["x" * 201, "runs", "a/runs/b", "..", "a/runs"])
def test_names_that_could_not_be_read_back_are_refused(
    api: ApiClient, items: list[str], send: Send, name: str
) -> None:
    link(api, items[0], 1, run=name).expect(400)
    assert b"name" in send(done(items[0], 1, name=name)).expect(200)
    assert not Run.objects.exists()
    for good in ("x" * 200, "a/my runs/b"):
        link(api, items[0], len(good), run=good).expect(200)
        api.get(f"{PUBLIC}/datasets/capitals/runs/{good}").expect(200)
