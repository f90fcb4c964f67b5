"""Every refusal is problem+json with a sentence, whoever refuses."""

from typing import Any

import pytest
from django.test import Client

from autoforge.errors import AppError, as_app_error, validation_sentence
from tests.conftest import Answer, ApiClient

URL = "/api/v1/prompts"
NEW = {"name": "p", "type": "text", "template": "x"}


def problem(answer: Answer, status: int, code: str) -> str:
    """The sentence of a refusal, after checking its form."""
    body = answer.expect(status)
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert (body["type"], body["status"], body["code"]) == ("about:blank", status, code)
    assert body["title"]
    return body["detail"]


def test_unknown_fields_are_refused_by_name(api: ApiClient) -> None:
    assert "'colour'" in problem(api.post(URL, NEW | {"colour": 1}), 422, "invalid")
    assert "'colour'" in problem(api.get(f"{URL}?colour=1"), 422, "invalid")


@pytest.mark.parametrize(
    ("body", "status", "code", "sentence"),
    [
        (b"{", 400, "bad_request", "cannot be read"),
        (b"\xff\xfe", 400, "bad_request", "cannot be read"),
        (b"", 400, "bad_request", "needs a JSON object"),
        (b'{"template": [{"a": ' + b"[" * 100_000, 400, "bad_request", "nested too deeply"),
        (b"[]", 422, "invalid", "Expected object, got array"),
        (b"null", 422, "invalid", "Expected object, got null"),
        (b'{"name": "p", "type": "text", "template": "\\u0000"}', 422, "invalid", "U+0000"),
    ],
)
def test_a_bad_body_is_refused(api: ApiClient, body: bytes, status: int, code: str, sentence: str) -> None:
    assert sentence in problem(api.request("POST", URL, body), status, code)


@pytest.mark.parametrize("depth", [880, 900, 920])
def test_json_that_can_be_read_may_be_too_deep_to_be_stored(api: ApiClient, depth: int) -> None:
    config = b'{"a": ' + b"[" * depth + b"]" * depth + b"}"
    body = b'{"name": "p", "type": "text", "template": "x", "config": ' + config + b"}"
    assert api.request("POST", URL, body).response.status_code in (201, 400)


def test_an_escaped_backslash_before_u0000_is_only_text(api: ApiClient) -> None:
    created = api.request("POST", URL, b'{"name": "p", "type": "text", "template": "\\\\u0000"}').expect(201)
    assert created["template"] == "\\u0000"


def test_another_format_is_refused(api: ApiClient) -> None:
    answer = api.post(URL, b"name=p", content_type="application/x-www-form-urlencoded")
    assert "send application/json" in problem(answer, 415, "unsupported_media_type")
    assert answer.headers["Accept"] == "application/json"
    api.post(URL, NEW, content_type="application/json; charset=utf-8").expect(201)


def test_a_wrong_method_is_refused_with_the_right_ones(api: ApiClient) -> None:
    answer = api.put(URL, {})
    assert "PUT is not allowed here, only GET, HEAD, POST" in problem(answer, 405, "method_not_allowed")
    assert answer.headers["Allow"] == "GET, HEAD, POST"
    completions = api.get("/api/v1/completions")
    assert problem(completions, 405, "method_not_allowed").endswith("only POST.")


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("path", ["/api/v1/nothing", "/api/v1/", "/api/v1/prompts/"])
def test_an_unknown_address_is_a_problem(api: ApiClient, settings: Any, path: str, debug: bool) -> None:
    settings.DEBUG = debug
    api._client.raise_request_exception = False
    assert problem(api.get(path), 404, "not_found")


def test_an_unknown_address_is_one_for_every_method() -> None:
    client = Client(enforce_csrf_checks=True)
    for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
        answer = client.generic(method, "/api/v1/nothing", b"{}", content_type="application/json")
        assert answer.status_code == 404 and answer.json()["code"] == "not_found"


def test_an_unknown_page_is_a_problem(nobody: ApiClient) -> None:
    assert "/nowhere" in problem(nobody.get("/nowhere"), 404, "not_found")


def test_head_answers_like_get_without_a_body(api: ApiClient, nobody: ApiClient, prompt: Any) -> None:
    for path in (URL, f"{URL}/p"):
        get, head = api.get(path), api.request("HEAD", path)
        assert head.expect(200) == b""
        assert head.headers["ETag"] == get.headers["ETag"]
    api.request("HEAD", f"{URL}/none").expect(404)
    nobody.request("HEAD", URL).expect(401)


@pytest.fixture
def prompt(api: ApiClient) -> Any:
    return api.post(URL, NEW).expect(201)


def test_a_viewer_may_ask_with_head(viewer: ApiClient) -> None:
    assert viewer.request("HEAD", URL).expect(200) == b""


def test_an_accept_header_that_nothing_satisfies_is_disregarded(api: ApiClient) -> None:
    assert api.with_headers(accept="text/html").get(URL).expect(200)["items"] == []


@pytest.mark.parametrize("path", [f"{URL}/a%00b", f"{URL}?name=%00", f"{URL}/a?label=%00"])
def test_nul_is_refused_in_addresses(api: ApiClient, path: str) -> None:
    assert "NUL" in problem(api.get(path), 400, "bad_request")


def test_a_foreign_host_is_refused_as_a_problem(db: None) -> None:
    response = Client().get(URL, headers={"Host": "evil.example"})
    assert response.status_code == 400
    assert response.headers["Content-Type"] == "application/problem+json"


def test_a_large_body_is_refused(api: ApiClient, settings: Any) -> None:
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 100
    assert "larger than this server takes" in problem(
        api.post(URL, NEW | {"template": "x" * 100}), 413, "too_large"
    )


def test_a_bug_is_a_server_error_that_tells_nothing(
    api: ApiClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*args: Any) -> None:
        raise RuntimeError("the secret is 42")

    monkeypatch.setattr("prompts.api.prompts.page_of_prompts", fail)
    api._client.raise_request_exception = False
    answer = api.get(URL)
    assert "42" not in problem(answer, 500, "server_error")
    assert "the secret is 42" in caplog.text


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        ("Object contains unknown field `x`", "There is no field 'x'."),
        ("Object contains unknown field `x` - at `$.vars[0]`", "vars[0]: There is no field 'x'."),
        ("Object missing required field `x` - at `$.parsed_query`", "The field 'x' is missing."),
        ("Expected `int`, got `str` - at `$.parsed_query.limit`", "limit: expected int, got str."),
        ("Expected `int | null`, got `str` - at `$.a[...].b`", "a[...].b: expected int | null, got str."),
        ("Invalid enum value 'x' - at `$.type`", "type: Invalid enum value 'x'."),
    ],
)
def test_a_validation_message_becomes_a_sentence(message: str, sentence: str) -> None:
    assert validation_sentence(message) == sentence


def test_a_bug_is_no_refusal() -> None:
    assert as_app_error(ValueError("x")) is None
    refusal = AppError("x")
    assert as_app_error(refusal) is refusal
