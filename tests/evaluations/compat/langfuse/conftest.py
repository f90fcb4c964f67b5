"""What Langfuse's SDKs send of an experiment: OTLP in protobuf, run items, scores."""

import gzip
import time
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.conftest import Answer, ApiClient

PUBLIC = "/api/public"
TRACES = f"{PUBLIC}/otel/v1/traces"


def fill(api: ApiClient, name: str = "capitals", count: int = 3) -> list[str]:
    """A data set of the SDK with `count` items; their ids."""
    api.post(f"{PUBLIC}/v2/datasets", {"name": name}).expect(200)
    keys = [f"{name}-{number}" for number in range(count)]
    for number, key in enumerate(keys):
        item = {"datasetName": name, "id": key, "input": {"q": number}, "expectedOutput": str(number)}
        api.post(f"{PUBLIC}/dataset-items", item).expect(200)
    return keys


@pytest.fixture
def items(api: ApiClient) -> list[str]:
    """The ids of three items of `capitals`."""
    return fill(api)


def span(trace: int, span_id: int, parent: int = 0, /, ms: float = 5, **attributes: Any) -> dict[str, Any]:
    """A span for `send`; `item__id=` is `langfuse.experiment.item.id`, `o__type=` an observation's."""
    named = {}
    for name, value in attributes.items():
        kind, _, rest = name.partition("__")
        path = rest if kind == "o" else name
        prefix = "langfuse.observation." if kind == "o" else "langfuse.experiment."
        named[prefix + path.replace("__", ".")] = value
    return {"trace": trace, "id": span_id, "parent": parent, "ms": ms, "attributes": named}


def experiment(item: str, root: int, *, id: str = "e1", name: str = "run 1", **more: Any) -> dict[str, Any]:
    """The attributes that every span of an experiment's item has."""
    named = {"id": id, "name": name, "dataset__id": "1", "item__id": item}
    return named | {"item__root_observation_id": f"{root:016x}"} | more


def encoded(spans: list[dict[str, Any]]) -> ExportTraceServiceRequest:
    batch = ExportTraceServiceRequest()
    scope = batch.resource_spans.add().scope_spans.add()
    start = time.time_ns()
    for it in spans:
        one = scope.spans.add(
            trace_id=it["trace"].to_bytes(16),
            span_id=it["id"].to_bytes(8),
            parent_span_id=it["parent"].to_bytes(8) if it["parent"] else b"",
            start_time_unix_nano=start,
            end_time_unix_nano=start + int(it["ms"] * 1e6),
        )
        for key, value in it["attributes"].items():
            pair = one.attributes.add(key=key)
            if isinstance(value, bool):
                pair.value.bool_value = value
            elif isinstance(value, int):
                pair.value.int_value = value
            else:
                pair.value.string_value = value
    return batch


@pytest.fixture
def send(api: ApiClient) -> Callable[..., Answer]:
    """Send spans as SDK 5 does, in gzip."""
    packed = api.with_headers(Content_Encoding="gzip")

    def send(*spans: dict[str, Any], client: ApiClient = packed) -> Answer:
        body = gzip.compress(encoded(list(spans)).SerializeToString())
        return client.request("POST", TRACES, body, content_type="application/x-protobuf")

    return send


def done(item: str, trace: int, output: str = "Paris", **more: Any) -> dict[str, Any]:
    """The span that ends an item of SDK 5."""
    root = trace * 16
    said = experiment(item, root) | {"o__type": "span", "o__output": output} | more
    return span(trace, root, root - 1, **said)


def score(trace: int, value: Any = 1.0, **more: Any) -> dict[str, Any]:
    """A score as SDK 5 sends it."""
    fields = {"id": f"s{trace}", "traceId": f"{trace:032x}", "observationId": f"{trace * 16:016x}"}
    return fields | {"name": "right", "value": value, "dataType": "NUMERIC"} | more


def only_run(api: ApiClient) -> dict[str, Any]:
    [run] = api.get("/api/v1/runs").expect(200)["items"]
    return run


def results_of(api: ApiClient, run: dict[str, Any]) -> list[dict[str, Any]]:
    return api.get(f"/api/v1/runs/{run['id']}/results").expect(200)["items"]


def as_json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
