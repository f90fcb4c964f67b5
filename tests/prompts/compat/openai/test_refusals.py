"""Who may do what, and how it is refused: OpenAI's JSON, the SDK's error classes, no senseless retries."""

import http.client
import json
from typing import Any

import openai
import pytest
from openai import OpenAI

from tests.fake_vendor import FakeVendor, Reply
from tests.prompts.compat.openai.conftest import Ask, Connect
from tests.realtime.clients import WebProcess

HELLO: Any = {"model": "echo", "messages": [{"role": "user", "content": "Hello"}]}


def raw_request(
    gateway: WebProcess, method: str, path: str, body: bytes = b"", key: str = "editor", **headers: str
) -> tuple[int, dict[str, str], Any]:
    """(status, headers, JSON) of a request that no SDK would send."""
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=10)
    try:
        authorization = {"Authorization": f"Bearer {gateway.world[key]}"} if key else {}
        connection.request(method, path, body, authorization | headers)
        response = connection.getresponse()
        content = response.read()
    finally:
        connection.close()
    lowered = {name.lower(): value for name, value in response.getheaders()}
    return response.status, lowered, json.loads(content) if content else None


def test_a_stranger_finds_none_of_our_models(connect: Connect, client: OpenAI) -> None:
    stranger = connect("stranger")
    assert {model.id for model in stranger.models.list()} == {"secret", "local-embeddings"}
    for model in ("echo", "prompt:support/greeting@production", "prompt:support/greeting"):
        with pytest.raises(openai.NotFoundError) as missing:
            stranger.chat.completions.create(model=model, messages=HELLO["messages"])
        assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
        with pytest.raises(openai.NotFoundError):
            stranger.models.retrieve(model)
        assert client.models.retrieve(model).id == model
    with pytest.raises(openai.NotFoundError):
        stranger.chat.completions.create(**HELLO | {"model": "secret"}, extra_body={"fallbacks": ["echo"]})
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(**HELLO | {"model": "secret"})


def test_a_viewer_sees_models_and_may_not_spend_money(connect: Connect, vendor: FakeVendor) -> None:
    viewer = connect("viewer")
    ids = {model.id for model in viewer.models.list()}
    assert {"echo", "gpt", "prompt:support/greeting@production", "local-embeddings"} <= ids
    assert "prompt:homeless@production" not in ids
    for stream in (False, True):
        with pytest.raises(openai.PermissionDeniedError):
            viewer.chat.completions.create(**HELLO | {"model": "gpt"}, stream=stream)
    with pytest.raises(openai.PermissionDeniedError):
        viewer.embeddings.create(model="local-embeddings", input="Hi")
    assert vendor.count == 0


def test_a_wrong_key_is_an_authentication_error(connect: Connect) -> None:
    with pytest.raises(openai.AuthenticationError) as refused:
        connect("af_sk_wrong").models.list()
    assert (refused.value.code, refused.value.type) == ("invalid_api_key", "authentication_error")
    assert refused.value.request_id


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("GET", "/v1/nothing", b"", 404, "unknown_url"),
        ("POST", "/v1/assistants", b"{}", 404, "unknown_url"),
        ("GET", "/v1/chat/completions", b"", 405, "method_not_allowed"),
        ("DELETE", "/v1/models/echo", b"", 405, "method_not_allowed"),
        ("POST", "/v1/chat/completions", b"", 400, "bad_request"),
        ("POST", "/v1/chat/completions", b"{", 400, "bad_request"),
        ("POST", "/v1/chat/completions", b'{"model": "echo\\ud800"}', 400, None),
        (
            "POST",
            "/v1/chat/completions",
            b'{"model": "a\\u0000b", "messages": [{"role": "user"}]}',
            404,
            None,
        ),
        ("GET", "/v1/models/a%00b", b"", 404, "model_not_found"),
        ("POST", "/v1/chat/completions", b'{"a":' + b"[" * 100_000, 400, "bad_request"),
        ("POST", "/v1/chat/completions", b" " * (3 * 2**20), 413, "too_large"),
    ],
)
def test_everything_is_refused_in_openais_form(
    gateway: WebProcess, method: str, path: str, body: bytes, status: int, code: str | None
) -> None:
    answered, headers, answer = raw_request(gateway, method, path, body)
    assert answered == status
    assert set(answer["error"]) >= {"message", "type", "param", "code"}
    assert answer["error"]["message"]
    assert code in (None, answer["error"]["code"])
    assert headers["content-type"] == "application/json"
    assert headers["x-request-id"].startswith("req_")
    assert ("allow" in headers) == (status == 405)


def test_no_key_is_refused_on_every_path(gateway: WebProcess) -> None:
    for method, path in (
        ("GET", "/v1/models"),
        ("GET", "/v1/nothing"),
        ("POST", "/v1/chat/completions"),
        ("POST", "/v1/embeddings"),
    ):
        status, headers, answer = raw_request(gateway, method, path, b"{}", key="")
        assert (status, answer["error"]["code"]) == (401, "invalid_api_key")
        assert "Bearer" in headers["www-authenticate"]


def test_head_is_get_without_its_body(gateway: WebProcess) -> None:
    status, headers, answer = raw_request(gateway, "HEAD", "/v1/models")
    assert (status, answer) == (200, None)
    assert headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("change", "param", "sentence"),
    [
        ({"messages": "Hello"}, "messages", "expected array"),
        ({"messages": []}, "messages", "at least one"),
        ({"messages": [{"role": "robot", "content": ""}]}, "messages[0].role", "must be one of"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content", "text or a list of parts"),
        ({"temperature": "hot"}, "temperature", "got str"),
        ({"n": 0}, "n", ">= 1"),
        ({"model": 5}, "model", "expected str"),
        ({"fallbacks": ["echo"] * 9}, "fallbacks", "length <= 8"),
    ],
)
def test_a_wrong_field_is_named(
    gateway: WebProcess, change: dict[str, Any], param: str, sentence: str
) -> None:
    body = json.dumps(HELLO | change).encode()
    status, _, answer = raw_request(gateway, "POST", "/v1/chat/completions", body)
    assert (status, answer["error"]["type"]) == (400, "invalid_request_error")
    assert answer["error"]["param"] == param
    assert sentence in answer["error"]["message"]


def test_unknown_fields_are_ignored(client: OpenAI) -> None:
    answer = client.chat.completions.create(**HELLO, store=True, extra_body={"of_tomorrow": {"x": 1}})
    assert answer.choices[0].message.content == "Hello"


def test_what_is_left_of_the_limit_is_told_as_openai_does(connect: Connect) -> None:
    raw = connect("counted").models.with_raw_response.list()
    assert raw.headers["x-ratelimit-limit-requests"] == "600"
    assert 0 <= int(raw.headers["x-ratelimit-remaining-requests"]) < 600
    assert raw.headers["x-ratelimit-reset-requests"].endswith("s")
    assert "RateLimit" in raw.headers


def test_a_limit_reached_is_a_rate_limit_error(connect: Connect) -> None:
    scarce = connect("scarce")
    with pytest.raises(openai.RateLimitError) as refused:
        for _ in range(3):
            scarce.models.list()
    error = refused.value
    assert (error.code, error.type) == ("rate_limit_exceeded", "rate_limit_error")
    assert 1 <= int(error.response.headers["retry-after"]) <= 120
    assert error.response.headers["x-ratelimit-remaining-requests"] == "0"


@pytest.mark.parametrize(
    ("reply", "kind", "status", "calls"),
    [
        (Reply(status=500), openai.InternalServerError, 502, 3),
        (Reply(status=503), openai.InternalServerError, 503, 3),
        (Reply(status=429, headers={"retry-after-ms": "5"}), openai.RateLimitError, 429, 3),
        (
            Reply(status=429, error={"code": "insufficient_quota", "message": "no money"}),
            openai.RateLimitError,
            429,
            1,
        ),
        (Reply(status=402), openai.RateLimitError, 429, 1),
        (Reply(status=401), openai.InternalServerError, 502, 1),
        (Reply(status=404), openai.InternalServerError, 502, 1),
        (Reply(status=400), openai.BadRequestError, 400, 1),
        (Reply(body=b"data: <html>\n\n"), openai.InternalServerError, 502, 1),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_the_sdk_repeats_what_may_mend_and_nothing_else(
    connect: Connect,
    vendor: FakeVendor,
    ask: Ask,
    monkeypatch: pytest.MonkeyPatch,
    reply: Reply,
    kind: type[openai.APIStatusError],
    status: int,
    calls: int,
    stream: bool,
) -> None:
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.001)
    vendor.default = reply
    with pytest.raises(kind) as failed:
        connect(max_retries=2).chat.completions.create(**ask(), stream=stream)
    assert failed.value.status_code == status
    assert vendor.count == calls


def test_a_budget_that_is_spent_says_so(client: OpenAI, vendor: FakeVendor, ask: Ask) -> None:
    vendor.script(Reply(status=429, error={"code": "insufficient_quota", "message": "no money"}))
    with pytest.raises(openai.RateLimitError) as refused:
        client.chat.completions.create(**ask())
    assert (refused.value.code, refused.value.type) == ("insufficient_quota", "insufficient_quota")
    assert refused.value.response.headers["x-should-retry"] == "false"


def test_a_request_sent_twice_under_one_key_is_carried_out_once(
    client: OpenAI, vendor: FakeVendor, ask: Ask
) -> None:
    question, once = ask(), {"Idempotency-Key": "k1", "Cache-Control": "no-store"}
    ids = {client.chat.completions.create(**question, extra_headers=once).id for _ in range(2)}
    assert (len(ids), vendor.count) == (1, 1)
