"""Langfuse's prompt routes: our prompts, in its shapes."""

import base64
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoforge.models import Project, Role
from autoforge.services import create_api_key
from prompts.compat.langfuse.texts import to_template, to_text
from prompts.models import Prompt
from prompts.rendering import render_value, variables
from tests.conftest import ApiClient

pytestmark = pytest.mark.django_db(transaction=True)
PROMPTS = "/api/public/v2/prompts"
MOVIE = f"{PROMPTS}/folder%2Fmovie%20critic"
TEXT = {"name": "folder/movie critic", "prompt": "Rate {{movie}}.", "config": {"model": "m"}, "labels": []}
# As SDK 4 and 5 send it: null for what was not given.
CHAT = {
    "name": "chat",
    "type": "chat",
    "prompt": [{"role": "system", "content": "You are {{who}}."}, {"type": "placeholder", "name": "history"}],
    "labels": ["production"],
    "tags": None,
    "commitMessage": None,
}


def create(api: ApiClient, **changes: Any) -> Any:
    return api.post(PROMPTS, TEXT | changes).expect(201)


def test_a_prompt_of_the_sdk_is_a_prompt_of_ours(api: ApiClient) -> None:
    first = create(api, labels=["production", "latest"], tags=["film"], commitMessage="one")
    assert (first["version"], first["type"], first["prompt"]) == (1, "text", "Rate {{movie}}.")
    assert (first["labels"], first["tags"], first["commitMessage"]) == (
        ["production", "latest"],
        ["film"],
        "one",
    )
    assert create(api, prompt="Rate {{ movie }}!")["labels"] == ["latest"]
    assert api.get(MOVIE).expect(200)["version"] == 1
    assert api.get(f"{MOVIE}?label=latest").expect(200)["version"] == 2
    assert api.get(f"{MOVIE}?version=2&resolve=false").expect(200)["config"] == {"model": "m"}
    ours = api.get("/api/v1/prompts/folder/movie critic").expect(200)
    assert (ours["version"], ours["template"], ours["variables"]) == (1, "Rate {{movie}}.", ["movie"])
    assert create(api)["version"] == 1, "the same content is the version that has it"
    assert api.post(PROMPTS, CHAT).expect(201)["prompt"] == CHAT["prompt"]
    assert api.get("/api/v1/prompts/chat").expect(200)["variables"] == ["history", "who"]


def test_what_is_missing_is_told_in_langfuses_words(api: ApiClient) -> None:
    create(api)
    assert api.get(MOVIE).expect(404) == {
        "message": "Prompt not found: 'folder/movie critic' with label 'production'",
        "error": "LangfuseNotFoundError",
    }
    assert api.get(f"{PROMPTS}/x?version=3").expect(404)["message"] == "Prompt not found: 'x' with version 3"


def test_labels_move_and_versions_go(api: ApiClient) -> None:
    create(api, labels=["production"])
    create(api, prompt="Two", labels=["staging"])
    moved = api.patch(f"{MOVIE}/versions/2", {"newLabels": ["production", "blue"]}).expect(200)
    assert (moved["version"], moved["labels"]) == (2, ["blue", "production", "staging", "latest"])
    assert api.get(MOVIE).expect(200)["version"] == 2
    refused = api.patch(f"{MOVIE}/versions/2", {"newLabels": ["latest"]}).expect(400)
    assert refused["error"] == "InvalidRequestError"
    for missing in (9, 2**31, 10**20 - 1):
        for labels in ([], ["production"]):
            api.patch(f"{MOVIE}/versions/{missing}", {"newLabels": labels}).expect(404)
    api.delete(f"{MOVIE}?label=").expect(400)
    api.delete(f"{MOVIE}?label=staging").expect(204)
    assert api.get(f"{MOVIE}?label=latest").expect(200)["version"] == 1
    api.get(MOVIE).expect(404)
    moves = api.get("/api/v1/prompts/folder/movie critic/labels").expect(200)
    assert (moves["labels"], moves["moves"][0]["to_version"]) == ([], None)
    api.delete(f"{MOVIE}?version=1").expect(204)
    assert not Prompt.objects.exists()


def test_prompts_are_listed_by_page(api: ApiClient, django_assert_num_queries: Any) -> None:
    for number in range(3):
        create(api, name=f"p{number}", labels=["production"], tags=["film"])
    create(api, name="p0", prompt="Two", config={"model": "n"})
    answer = api.get(f"{PROMPTS}?page=1&limit=2&tag=film").expect(200)
    assert answer["meta"] == {"page": 1, "limit": 2, "totalItems": 3, "totalPages": 2}
    first = answer["data"][0]
    assert (first["name"], first["versions"], first["labels"]) == ("p0", [1, 2], ["production", "latest"])
    assert (first["type"], first["lastConfig"]) == ("text", {"model": "n"})
    assert [p["name"] for p in api.get(f"{PROMPTS}?name=p2&label=production").expect(200)["data"]] == ["p2"]
    assert api.get(f"{PROMPTS}?toUpdatedAt=2020-01-01T00:00:00Z").expect(200)["data"] == []
    with django_assert_num_queries(5):
        api.get(f"{PROMPTS}?limit=100").expect(200)
    api.get(f"{PROMPTS}?limit=101").expect(400)


def test_only_editors_change_and_only_owners_move_protected_labels(
    project: Project, owner: ApiClient, api: ApiClient, viewer: ApiClient
) -> None:
    create(api, labels=["production"])
    project.protected_labels = ["production"]
    project.save()
    attempts = (
        ("POST", PROMPTS, TEXT | {"prompt": "Two", "labels": ["production"]}),
        ("PATCH", f"{MOVIE}/versions/1", {"newLabels": ["blue"]}),
        ("DELETE", MOVIE, None),
        ("DELETE", f"{MOVIE}?version=1", None),
    )
    for method, path, body in attempts:
        assert viewer.request(method, path, body).expect(403)["error"] == "ForbiddenError"
    assert viewer.get(MOVIE).expect(200)["labels"] == ["production", "latest"]
    for method, path, body in (attempts[0], attempts[2], attempts[3]):
        assert "protected" in api.request(method, path, body).expect(403)["message"]
    assert viewer.get(f"{MOVIE}?label=latest").expect(200)["version"] == 1, "nothing was left half done"
    owner.post(PROMPTS, TEXT | {"prompt": "Two", "labels": ["production"]}).expect(201)
    assert viewer.get(MOVIE).expect(200)["version"] == 2


def test_a_stranger_finds_nothing(api: ApiClient, stranger: ApiClient, nobody: ApiClient) -> None:
    create(api, labels=["production"])
    assert stranger.get(PROMPTS).expect(200)["data"] == []
    stranger.get(MOVIE).expect(404)
    stranger.patch(f"{MOVIE}/versions/1", {"newLabels": ["blue"]}).expect(404)
    stranger.delete(MOVIE).expect(404)
    for path in (PROMPTS, MOVIE, "/api/public/projects", "/api/public/nothing"):
        assert nobody.get(path).expect(401)["error"] == "UnauthorizedError"
    assert nobody.get("/api/public/health").expect(200)["status"] == "OK"
    assert api.get(MOVIE).expect(200)["labels"] == ["production", "latest"]


def test_a_pair_of_keys_names_its_project(project: Project, api: ApiClient) -> None:
    new = create_api_key(project, name="pair", role=Role.VIEWER)

    def basic(public: str) -> ApiClient:
        pair = base64.b64encode(f"{public}:{new.secret}".encode()).decode()
        return api.with_headers(Authorization=f"Basic {pair}")

    [shown] = basic(new.key.public_id).get("/api/public/projects").expect(200)["data"]
    assert (shown["id"], shown["name"]) == (str(project.pk), "acme")
    assert set(shown) >= {"organization", "metadata"}
    basic("af_pk_other").get("/api/public/projects").expect(401)


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("method", "path", "body", "status", "error"),
    [
        ("GET", "/api/public/comments", b"", 404, "LangfuseNotFoundError"),
        ("POST", "/api/public/v2/nothing", b"{}", 404, "LangfuseNotFoundError"),
        ("PUT", PROMPTS, b"{}", 405, "MethodNotAllowedError"),
        ("POST", PROMPTS, b"{", 400, "InvalidRequestError"),
        ("POST", PROMPTS, b'{"name": "a\\u0000", "prompt": ""}', 400, "InvalidRequestError"),
        ("POST", PROMPTS, b'{"name": "a:b", "prompt": ""}', 400, "InvalidRequestError"),
        ("POST", PROMPTS, b'{"name": "a", "prompt": "", "config": 5}', 400, "InvalidRequestError"),
        ("POST", PROMPTS, b'{"name": 5, "prompt": ""}', 400, [{"message": "name: expected str, got int."}]),
        ("GET", f"{PROMPTS}?page=x", b"", 400, [{"message": "page: expected int, got str."}]),
        ("GET", f"{PROMPTS}?limit=0", b"", 400, "InvalidRequestError"),
        (
            "GET",
            f"{PROMPTS}?fromUpdatedAt=0001-01-01T00:00:00%2B14:00",
            b"",
            400,
            [{"message": "Give times within the years 1 to 9999 of UTC."}],
        ),
        ("GET", f"{PROMPTS}?page=0", b"", 400, [{"message": "page: Expected int >= 1."}]),
        (
            "GET",
            f"{PROMPTS}/x?version=99999999999",
            b"",
            400,
            [{"message": "version: Expected int <= 2147483647."}],
        ),
        ("PATCH", f"{PROMPTS}/x/versions/99999999999", b'{"newLabels": []}', 404, "LangfuseNotFoundError"),
        ("POST", "/api/public/health", b"", 405, "MethodNotAllowedError"),
        ("DELETE", f"{PROMPTS}/x?label=", b"", 400, [{"message": "label: Expected str of length >= 1."}]),
    ],
)
def test_everything_is_refused_in_langfuses_form(
    api: ApiClient, method: str, path: str, body: bytes, status: int, error: Any
) -> None:
    answer = api.request(method, path, body).expect(status)
    assert (set(answer), answer["error"]) == ({"message", "error"}, error)
    assert answer["message"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", PROMPTS, 200),
        ("GET", MOVIE, 404),
        ("PUT", PROMPTS, 405),
        ("POST", PROMPTS, 403),
        ("GET", f"{PROMPTS}?limit=0", 400),
        ("GET", f"{PROMPTS}?name=%00", 400),
        ("GET", "/api/public/comments", 404),
        ("POST", "/api/public/comments", 404),
    ],
)
def test_every_answer_counts_and_says_what_is_left(
    project: Project, method: str, path: str, status: int
) -> None:
    key = create_api_key(project, name="limited", role=Role.VIEWER, rate_limit_per_min=1)
    answer = ApiClient(key.secret).request(method, path, b"{}")
    answer.expect(status)
    assert answer.headers["RateLimit-Policy"] == '"key";q=1;w=60'
    assert answer.headers["RateLimit"].startswith('"key";r=0;t=')
    beyond = ApiClient(key.secret).request(method, path, b"{}")
    assert beyond.expect(429)["error"] == "TooManyRequestsError"
    assert beyond.headers["RateLimit"].startswith('"key";r=0;t=') and beyond.headers["Retry-After"]


def test_a_prompt_keeps_its_type(api: ApiClient) -> None:
    create(api)
    refused = api.post(PROMPTS, CHAT | {"name": TEXT["name"]}).expect(400)
    assert "have the type text" in refused["message"]


def compiled_by_the_sdk(text: str, values: dict[str, str]) -> str:
    """The rule of Langfuse's clients: from each "{{" to the next "}}" stands a name, known or not."""
    before, mark, rest = text.partition("{{")
    inner, end, after = rest.partition("}}")
    if not mark or not end:
        return text
    known = values.get(inner.strip())
    return before + (f"{{{{{inner}}}}}" if known is None else known) + compiled_by_the_sdk(after, values)


PIECES = [
    "{",
    "}",
    "{{",
    "}}",
    "{%",
    "%}",
    "{#",
    "#}",
    "name",
    "if",
    " ",
    "'",
    "-",
    "{{ name }}",
    "{{ '{{' }}",
]


@given(st.lists(st.sampled_from(PIECES), max_size=9).map("".join))
def test_a_text_renders_as_the_sdk_compiles_it_and_leaves_as_it_came(text: str) -> None:
    template = to_template(text)
    values = dict.fromkeys(variables(template), "V")
    assert to_text(template) == text
    assert render_value(template, values) == compiled_by_the_sdk(text, values)


def test_lines_of_a_rendered_text_end_in_newlines() -> None:
    text = "To {{name}}:\r\nHello\r\n"
    assert to_text(to_template(text)) == text
    assert render_value(to_template(text), {"name": "V"}) == "To V:\nHello\n"


def test_a_text_that_is_code_here_stays_text(api: ApiClient) -> None:
    text = '{% raw %}{"a": {{name}}} {# no #} {{ a.b }} {{x|upper}}'
    assert create(api, prompt=text, labels=["production"])["prompt"] == text
    rendered = api.post("/api/v1/prompts/folder/movie critic/render", {"vars": {"name": "1"}}).expect(200)
    assert rendered["messages"][0]["content"] == text.replace("{{name}}", "1")
    assert msgspec.json.decode(api.get(MOVIE).response.content)["prompt"] == text
