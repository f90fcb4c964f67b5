"""Prompts through the front door: create, read, list, tag, delete."""

from typing import Any

import pytest

from autoforge.models import Project
from tests.conftest import ApiClient

NEW = {"name": "support/greeting", "type": "text", "template": "Hello {{ name }}"}
PROMPT = "/api/v1/prompts/support/greeting"


def test_a_prompt_is_created_and_read_back(api: ApiClient) -> None:
    body = NEW | {
        "config": {"temperature": 0.2},
        "labels": ["production"],
        "tags": ["mail", "mail", "de"],
        "message": "first",
    }
    created = api.post("/api/v1/prompts", body).expect(201)
    assert created == api.get(PROMPT).expect(200)
    assert created.pop("created_at").endswith("Z")
    assert created == {
        "name": "support/greeting",
        "type": "text",
        "version": 1,
        "template": "Hello {{ name }}",
        "variables": ["name"],
        "config": {"temperature": 0.2},
        "labels": ["production", "latest"],
        "tags": ["mail", "de"],
        "message": "first",
        "created_by": "test editor",
    }


def test_a_chat_prompt_keeps_its_messages(api: ApiClient) -> None:
    template = [
        {"role": "system", "content": "You are {{ persona }}."},
        {"type": "placeholder", "name": "history"},
        {"role": "user", "content": "{{ question }}"},
    ]
    created = api.post("/api/v1/prompts", {"name": "chat", "type": "chat", "template": template}).expect(201)
    assert created["template"] == template
    assert sorted(created["variables"]) == ["history", "persona", "question"]


def test_a_name_is_taken_once_a_project(api: ApiClient, stranger: ApiClient) -> None:
    api.post("/api/v1/prompts", NEW).expect(201)
    problem = api.post("/api/v1/prompts", NEW).expect(409)
    assert problem["code"] == "conflict"
    assert "POST prompts/support/greeting/versions" in problem["detail"]
    stranger.post("/api/v1/prompts", NEW).expect(201)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"name": ""}, "1 to 200 characters"),
        ({"name": "a" * 201}, "1 to 200 characters"),
        ({"name": "/a"}, "must not begin or end with '/'"),
        ({"name": "a//b"}, "must not begin or end with '/' or contain '//'"),
        ({"name": "a/"}, "must not begin or end with '/'"),
        ({"name": "a?b"}, "may hold letters, digits, spaces"),
        ({"name": "a/../b"}, "only dots"),
        ({"name": " a"}, "begin or end with a space"),
        ({"name": "a/versions"}, "'versions' is reserved"),
        ({"name": "labels/a"}, "'labels' is reserved"),
        ({"name": "diff"}, "'diff' is reserved"),
        ({"name": "render"}, "'render' is reserved"),
        ({"type": "image"}, "type: "),
        ({"template": 5}, "template: expected str | array, got int"),
        ({"template": [{"role": "user", "content": "x"}]}, "messages need type 'chat'"),
        ({"type": "chat"}, "list of 1 to 500 messages"),
        ({"type": "chat", "template": []}, "list of 1 to 500 messages"),
        ({"type": "chat", "template": [{"role": "robot", "content": ""}]}, "template[0]: the role 'robot'"),
        ({"type": "chat", "template": [{"role": "user"}]}, "template[0]: a message has 'role' and 'content'"),
        (
            {"type": "chat", "template": [{"role": "user", "content": 1}]},
            "content must be a string, or a list of parts",
        ),
        ({"type": "chat", "template": [{"type": "placeholder"}]}, "a placeholder has 'type' and a 'name'"),
        ({"template": "Hello {{ name"}, "line 1"),
        ({"labels": ["latest"]}, "'latest' always names the newest version"),
        ({"labels": ["no spaces"]}, "The label 'no spaces'"),
        ({"tags": [""]}, "The tag ''"),
        ({"tags": [str(n) for n in range(51)]}, "at most 50 tags"),
        ({"message": "m" * 501}, "at most 500 characters"),
        ({"template": "a\0b"}, "U+0000"),
        ({"colour": "red"}, "There is no field 'colour'"),
    ],
)
def test_a_bad_prompt_is_refused_with_a_sentence(
    api: ApiClient, change: dict[str, Any], sentence: str
) -> None:
    problem = api.post("/api/v1/prompts", NEW | change).expect(422)
    assert sentence in problem["detail"]
    assert api.get("/api/v1/prompts").expect(200)["items"] == []


def test_a_refused_prompt_leaves_nothing_behind(api: ApiClient) -> None:
    api.post("/api/v1/prompts", NEW | {"labels": ["fine", "latest"]}).expect(422)
    api.get(PROMPT).expect(404)


def test_reading_takes_production_else_latest(api: ApiClient) -> None:
    api.post("/api/v1/prompts", NEW).expect(201)
    api.post(f"{PROMPT}/versions", {"template": "two"}).expect(201)
    assert api.get(PROMPT).expect(200)["version"] == 2
    api.put(f"{PROMPT}/labels/production", {"version": 1}).expect(200)
    assert api.get(PROMPT).expect(200)["version"] == 1
    assert api.get(f"{PROMPT}?label=latest").expect(200)["version"] == 2
    assert api.get(f"{PROMPT}?label=production").expect(200)["version"] == 1
    assert api.get(f"{PROMPT}?version=2").expect(200)["version"] == 2


@pytest.mark.parametrize(
    ("query", "status", "sentence"),
    [
        ("label=staging", 404, "has no label 'staging'"),
        ("version=9", 404, "has no version 9"),
        ("version=0", 422, "version: "),
        ("version=99999999999", 422, "version: "),
        ("version=two", 422, "version: expected int"),
        ("label=a&version=1", 422, "a label or a version, not both"),
        ("labels=a", 422, "There is no field 'labels'"),
        ("label=%00", 400, "NUL"),
    ],
)
@pytest.mark.usefixtures("prompt")
def test_a_version_that_is_not_there(api: ApiClient, query: str, status: int, sentence: str) -> None:
    assert sentence in api.get(f"{PROMPT}?{query}").expect(status)["detail"]


def test_an_encoded_slash_means_the_same_prompt(api: ApiClient) -> None:
    api.post("/api/v1/prompts", NEW | {"name": "folder/movie critic"}).expect(201)
    assert api.get("/api/v1/prompts/folder%2Fmovie%20critic").expect(200)["version"] == 1
    api.post("/api/v1/prompts/folder%2Fmovie%20critic/versions", {"template": "x"}).expect(201)
    api.put("/api/v1/prompts/folder%2Fmovie%20critic/labels/production", {"version": 1}).expect(200)


@pytest.mark.usefixtures("prompt")
def test_an_unchanged_prompt_is_not_sent_again(api: ApiClient) -> None:
    etag = api.get(PROMPT).headers["ETag"]
    again = api.with_headers(if_none_match=etag).get(PROMPT)
    assert again.expect(304) == b""
    assert again.headers["ETag"] == etag
    api.post(f"{PROMPT}/versions", {"template": "new"}).expect(201)
    fresh = api.with_headers(if_none_match=etag).get(PROMPT)
    assert fresh.expect(200)["template"] == "new"
    assert fresh.headers["ETag"] != etag


def test_tags_are_replaced_and_nothing_else_changes(api: ApiClient) -> None:
    before = api.post("/api/v1/prompts", NEW | {"tags": ["a"]}).expect(201)
    after = api.patch(PROMPT, {"tags": ["b", "c"]}).expect(200)
    assert after == before | {"tags": ["b", "c"]}
    assert "There is no field 'template'" in api.patch(PROMPT, {"template": "x"}).expect(422)["detail"]


def test_a_deleted_prompt_is_gone(api: ApiClient) -> None:
    api.post("/api/v1/prompts", NEW).expect(201)
    assert api.delete(PROMPT).expect(204) == b""
    api.get(PROMPT).expect(404)
    api.delete(PROMPT).expect(404)
    assert api.post("/api/v1/prompts", NEW).expect(201)["version"] == 1


def test_a_prompt_with_a_protected_label_is_deleted_by_owners_only(
    api: ApiClient, owner: ApiClient, project: Project
) -> None:
    api.post("/api/v1/prompts", NEW | {"labels": ["production"]}).expect(201)
    project.protected_labels = ["production"]
    project.save()
    assert "protected" in api.delete(PROMPT).expect(403)["detail"]
    owner.delete(PROMPT).expect(204)


def _create(api: ApiClient, name: str, **fields: Any) -> None:
    api.post("/api/v1/prompts", NEW | {"name": name} | fields).expect(201)


def _names(answer: dict[str, Any]) -> list[str]:
    return [item["name"] for item in answer["items"]]


def test_the_list_is_filtered(api: ApiClient) -> None:
    _create(api, "mail/Reply", tags=["mail"], labels=["production"])
    _create(api, "mail/subject", tags=["mail", "short é"])
    _create(api, "chat", tags=["chat"], labels=["production"])
    get = lambda query: _names(api.get(f"/api/v1/prompts?{query}").expect(200))  # noqa: E731  a local shorthand
    assert get("") == ["chat", "mail/Reply", "mail/subject"]
    assert get("name=mail/") == ["mail/Reply", "mail/subject"]
    assert get("name=reply") == ["mail/Reply"]
    assert get("tag=mail") == ["mail/Reply", "mail/subject"]
    assert get("tag=short%20%C3%A9") == ["mail/subject"]
    assert get("tag=mai") == []
    assert get("label=production") == ["chat", "mail/Reply"]
    assert get("label=latest&tag=chat") == ["chat"]
    assert get("label=production&tag=mail&name=x") == []


def test_the_list_shows_each_at_the_label_asked_for(api: ApiClient) -> None:
    _create(api, "a", labels=["staging"])
    api.post("/api/v1/prompts/a/versions", {"template": "two", "labels": ["production"]}).expect(201)
    api.post("/api/v1/prompts/a/versions", {"template": "three"}).expect(201)
    shown = lambda query: api.get(f"/api/v1/prompts?{query}").expect(200)["items"][0]["version"]  # noqa: E731  a local shorthand
    assert (shown(""), shown("label=staging"), shown("label=latest")) == (2, 1, 3)


def test_pages_follow_each_other_without_gap(api: ApiClient) -> None:
    names = [f"p{number:02}" for number in range(7)]
    for name in names:
        _create(api, name)
    seen, cursor = [], ""
    while cursor is not None:
        answer = api.get(f"/api/v1/prompts?limit=3&cursor={cursor}").expect(200)
        seen += _names(answer)
        cursor = answer["next_cursor"]
    assert seen == names


def test_a_page_costs_two_queries_whatever_its_size(api: ApiClient, django_assert_num_queries: Any) -> None:
    for number in range(5):
        _create(api, f"p{number}", labels=["production", "staging"])
    api.get("/api/v1/prompts?limit=1").expect(200)  # the key is remembered from here on
    for limit in (1, 5):
        with django_assert_num_queries(2):
            assert len(_names(api.get(f"/api/v1/prompts?limit={limit}").expect(200))) == limit


def test_one_prompt_costs_one_query(api: ApiClient, prompt: Any, django_assert_num_queries: Any) -> None:
    api.get(PROMPT).expect(200)
    for query in ("", "?label=latest", "?version=1"):
        with django_assert_num_queries(1):
            api.get(f"{PROMPT}{query}").expect(200)
    with django_assert_num_queries(2):
        api.get(f"{PROMPT}?label=none").expect(404)


ROUTES = [
    ("GET", PROMPT, None),
    ("PATCH", PROMPT, {"tags": []}),
    ("DELETE", PROMPT, None),
    ("GET", f"{PROMPT}/versions", None),
    ("POST", f"{PROMPT}/versions", {"template": "x"}),
    ("GET", f"{PROMPT}/diff?from=1&to=1", None),
    ("POST", f"{PROMPT}/render", {"vars": {"name": "Ada"}}),
    ("GET", f"{PROMPT}/labels", None),
    ("PUT", f"{PROMPT}/labels/production", {"version": 1}),
    ("DELETE", f"{PROMPT}/labels/production", None),
]
WRITES = [route for route in ROUTES if route[0] != "GET" and not route[1].endswith("/render")]


@pytest.mark.parametrize(("method", "path", "body"), ROUTES)
@pytest.mark.usefixtures("prompt")
def test_a_stranger_gets_nothing(stranger: ApiClient, method: str, path: str, body: Any) -> None:
    problem = stranger.request(method, path, body).expect(404)
    assert "There is no prompt 'support/greeting'" in problem["detail"]


@pytest.mark.parametrize(("method", "path", "body"), [*ROUTES, ("GET", "/api/v1/prompts", None)])
def test_nobody_gets_nothing(nobody: ApiClient, db: None, method: str, path: str, body: Any) -> None:
    answer = nobody.request(method, path, body)
    assert answer.expect(401)["code"] == "not_authenticated"
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize(("method", "path", "body"), [*WRITES, ("POST", "/api/v1/prompts", NEW)])
@pytest.mark.usefixtures("prompt")
def test_a_viewer_only_reads(viewer: ApiClient, method: str, path: str, body: Any) -> None:
    before = viewer.get(PROMPT).expect(200)
    assert "needs the role editor" in viewer.request(method, path, body).expect(403)["detail"]
    assert viewer.get(PROMPT).expect(200) == before


@pytest.mark.usefixtures("prompt")
def test_a_strangers_list_is_empty(stranger: ApiClient) -> None:
    assert stranger.get("/api/v1/prompts").expect(200) == {"items": [], "next_cursor": None}
