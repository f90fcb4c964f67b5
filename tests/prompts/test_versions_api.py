"""Versions, their differences, their labels and their rendering, through the front door."""

from collections.abc import Callable
from typing import Any

import pytest

from autoforge.models import Project
from prompts.events import LabelMoved, PromptDeleted, PromptEvent, VersionCreated
from prompts.models import Prompt, PromptVersion
from tests.conftest import ApiClient

PROMPT = "/api/v1/prompts/support/greeting"
pytestmark = pytest.mark.usefixtures("prompt")


def add(api: ApiClient, template: Any, **fields: Any) -> int:
    """The number of a new version."""
    return api.post(f"{PROMPT}/versions", {"template": template} | fields).expect(201)["version"]


def test_versions_count_up_and_stay_as_they_are(api: ApiClient) -> None:
    first = api.get(f"{PROMPT}?version=1").expect(200)
    assert [add(api, "two"), add(api, "three")] == [2, 3]
    assert api.get(f"{PROMPT}?version=1").expect(200) == first | {"labels": []}
    listed = api.get(f"{PROMPT}/versions").expect(200)
    assert [(item["version"], item["template"]) for item in listed["items"]] == [
        (3, "three"),
        (2, "two"),
        (1, "Hello {{ name }}"),
    ]
    assert [item["labels"] for item in listed["items"]] == [["latest"], [], []]


def test_the_same_content_is_the_same_version(api: ApiClient) -> None:
    config = {"a": 1, "b": {"c": [1, 2], "d": None}}
    body = {"template": "two", "config": config}
    assert api.post(f"{PROMPT}/versions", body).expect(201)["version"] == 2
    turned = {"template": "two", "config": {"b": {"d": None, "c": [1, 2]}, "a": 1}, "labels": ["staging"]}
    same = api.post(f"{PROMPT}/versions", turned).expect(200)
    assert (same["version"], same["labels"]) == (2, ["staging", "latest"])
    assert api.post(f"{PROMPT}/versions", {"template": "two"}).expect(201)["version"] == 3


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({}, "The field 'template' is missing"),
        ({"template": [{"role": "user", "content": "x"}]}, "messages need type 'chat'"),
        ({"template": "x", "type": "text"}, "There is no field 'type'"),
        ({"template": "x", "config": []}, "config: expected object, got array"),
        ({"template": "{{ }}"}, "The template cannot be read"),
    ],
)
def test_a_bad_version_is_refused_with_a_sentence(api: ApiClient, body: Any, sentence: str) -> None:
    assert sentence in api.post(f"{PROMPT}/versions", body).expect(422)["detail"]
    assert PromptVersion.objects.count() == 1


def test_a_page_of_versions_costs_two_queries(api: ApiClient, django_assert_num_queries: Any) -> None:
    for number in range(4):
        add(api, f"text {number}", labels=[f"label-{number}"])
    api.get(f"{PROMPT}/versions?limit=1").expect(200)
    for limit in (1, 5):
        with django_assert_num_queries(2):
            assert len(api.get(f"{PROMPT}/versions?limit={limit}").expect(200)["items"]) == limit


def test_a_difference_names_lines_and_settings(api: ApiClient) -> None:
    add(api, "Hello\n{{ name }}!", config={"temperature": 0, "stop": "x"})
    add(api, "Hello\n{{ title }} {{ name }}!", config={"temperature": 1, "seed": 7})
    diff = api.get(f"{PROMPT}/diff?from=2&to=3").expect(200)
    assert diff["template"].splitlines() == [
        "--- version 2",
        "+++ version 3",
        "@@ -1,2 +1,2 @@",
        " Hello",
        "-{{ name }}!",
        "+{{ title }} {{ name }}!",
    ]
    assert diff["config"] == {
        "added": {"seed": 7},
        "removed": {"stop": "x"},
        "changed": {"temperature": {"from": 0, "to": 1}},
    }
    assert (diff["name"], diff["from"], diff["to"]) == ("support/greeting", 2, 3)


def test_what_differs_of_long_texts_is_one_block(api: ApiClient) -> None:
    lines = [f"line {number}" for number in range(2_000)]
    changed = [*lines[:10], "new", *lines[12:1_990], "x", "y", *lines[1_991:]]
    add(api, "\n".join(lines))
    add(api, "\n".join(changed))
    diff = api.get(f"{PROMPT}/diff?from=2&to=3").expect(200)["template"].splitlines()
    removed, added = lines[10:1_991], changed[10:1_991]
    assert diff == [
        "--- version 2",
        "+++ version 3",
        "@@ -8,1987 +8,1987 @@",
        *(f" {line}" for line in lines[7:10]),
        *(f"-{line}" for line in removed),
        *(f"+{line}" for line in added),
        *(f" {line}" for line in lines[1_991:1_994]),
    ]
    assert api.get(f"{PROMPT}/diff?from=3&to=3").expect(200)["template"] == ""


def test_no_difference_is_empty(api: ApiClient) -> None:
    diff = api.get(f"{PROMPT}/diff?from=1&to=1").expect(200)
    assert diff["template"] == ""
    assert diff["config"] == {"added": {}, "removed": {}, "changed": {}}


def test_a_chat_is_compared_message_by_message(api: ApiClient) -> None:
    parts = [{"type": "text", "text": "Look"}]
    one = [{"role": "system", "content": "Be kind."}, {"type": "placeholder", "name": "history"}]
    two = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": parts}]
    api.post("/api/v1/prompts", {"name": "chat", "type": "chat", "template": one}).expect(201)
    api.post("/api/v1/prompts/chat/versions", {"template": two}).expect(201)
    lines = api.get("/api/v1/prompts/chat/diff?from=1&to=2").expect(200)["template"].splitlines()
    assert "-Be kind." in lines and "+Be brief." in lines
    assert "-[placeholder history]" in lines and "+[user]" in lines


@pytest.mark.parametrize(
    ("query", "status", "sentence"),
    [
        ("", 422, "The field 'from' is missing"),
        ("from=1", 422, "The field 'to' is missing"),
        ("from=1&to=7", 404, "has no version 7"),
        ("from=1&to=x", 422, "to: expected int"),
    ],
)
def test_a_difference_needs_two_versions(api: ApiClient, query: str, status: int, sentence: str) -> None:
    assert sentence in api.get(f"{PROMPT}/diff?{query}").expect(status)["detail"]


def test_a_label_moves_and_its_history_is_kept(api: ApiClient) -> None:
    add(api, "two")
    moved = api.put(f"{PROMPT}/labels/production", {"version": 1}).expect(200)
    assert (moved["version"], moved["labels"]) == (1, ["production"])
    api.put(f"{PROMPT}/labels/production", {"version": 1}).expect(200)  # no move: it is there
    api.put(f"{PROMPT}/labels/production", {"version": 2}).expect(200)
    assert api.delete(f"{PROMPT}/labels/production").expect(204) == b""
    answer = api.get(f"{PROMPT}/labels").expect(200)
    assert answer["labels"] == []
    moves = [(m["label"], m["from_version"], m["to_version"], m["moved_by"]) for m in answer["moves"]]
    assert moves == [
        ("production", 2, None, "test editor"),
        ("production", 1, 2, "test editor"),
        ("production", None, 1, "test editor"),
    ]


def test_the_history_comes_in_pages(api: ApiClient, django_assert_num_queries: Any) -> None:
    for name in ("a", "b", "c"):
        api.put(f"{PROMPT}/labels/{name}", {"version": 1}).expect(200)
    with django_assert_num_queries(3):
        first = api.get(f"{PROMPT}/labels?limit=2").expect(200)
    assert [move["label"] for move in first["moves"]] == ["c", "b"]
    assert first["labels"][0] == {"name": "a", "version": 1, "is_protected": False}
    rest = api.get(f"{PROMPT}/labels?limit=2&cursor={first['next_cursor']}").expect(200)
    assert [move["label"] for move in rest["moves"]] == ["a"]
    assert rest["next_cursor"] is None


def test_a_protected_label_obeys_only_owners(api: ApiClient, owner: ApiClient, project: Project) -> None:
    add(api, "two")
    project.protected_labels = ["production"]
    project.save()
    owner.put(f"{PROMPT}/labels/production", {"version": 1}).expect(200)
    refused = [
        api.put(f"{PROMPT}/labels/production", {"version": 2}),
        api.delete(f"{PROMPT}/labels/production"),
        api.post(f"{PROMPT}/versions", {"template": "three", "labels": ["production"]}),
        api.post(f"{PROMPT}/versions", {"template": "two", "labels": ["production"]}),
        api.post("/api/v1/prompts", {"name": "p", "type": "text", "template": "", "labels": ["production"]}),
    ]
    for answer in refused:
        assert "'production' is protected" in answer.expect(403)["detail"]
    assert api.get(f"{PROMPT}?label=production").expect(200)["version"] == 1
    assert PromptVersion.objects.count() == 2
    assert owner.get(f"{PROMPT}/labels").expect(200)["labels"][0]["is_protected"] is True
    owner.delete(f"{PROMPT}/labels/production").expect(204)


@pytest.mark.parametrize(
    ("label", "body", "status", "sentence"),
    [
        ("latest", {"version": 1}, 422, "'latest' always names the newest version"),
        ("a%20b", {"version": 1}, 422, "The label 'a b'"),
        ("staging", {"version": 7}, 404, "has no version 7"),
        ("staging", {"version": 0}, 422, "version: "),
        ("staging", {"version": "1"}, 422, "version: expected int, got str"),
        ("staging", {"version": 1, "force": True}, 422, "There is no field 'force'"),
    ],
)
def test_a_bad_move_is_refused(api: ApiClient, label: str, body: Any, status: int, sentence: str) -> None:
    assert sentence in api.put(f"{PROMPT}/labels/{label}", body).expect(status)["detail"]
    assert api.get(f"{PROMPT}/labels").expect(200)["moves"] == []


def test_a_label_that_is_not_there_cannot_be_taken_away(api: ApiClient) -> None:
    assert "has no label 'staging'" in api.delete(f"{PROMPT}/labels/staging").expect(404)["detail"]
    api.delete(f"{PROMPT}/labels/latest").expect(422)


def test_a_prompt_has_a_bounded_number_of_labels(api: ApiClient) -> None:
    for number in range(50):
        api.put(f"{PROMPT}/labels/l{number}", {"version": 1}).expect(200)
    problem = api.put(f"{PROMPT}/labels/one-more", {"version": 1}).expect(422)
    assert "at most 50 labels" in problem["detail"]


def test_a_text_is_rendered_into_one_message(api: ApiClient, viewer: ApiClient) -> None:
    answer = viewer.post(f"{PROMPT}/render", {"vars": {"name": "Ada"}}).expect(200)
    assert answer == {"messages": [{"role": "user", "content": "Hello Ada"}]}
    add(api, "{{ name }}, good day", labels=["formal"])
    formal = viewer.post(f"{PROMPT}/render", {"vars": {"name": "Ada"}, "label": "formal"}).expect(200)
    assert formal["messages"][0]["content"] == "Ada, good day"
    first = viewer.post(f"{PROMPT}/render", {"vars": {"name": "Ada"}, "version": 1}).expect(200)
    assert first == answer


def test_variables_that_do_not_fit_are_named(api: ApiClient) -> None:
    missing = api.post(f"{PROMPT}/render", {"vars": {}}).expect(422)
    assert missing["missing"] == ["name"]
    mistyped = api.post(f"{PROMPT}/render", {"vars": {"nmae": "Ada"}}).expect(422)
    assert (mistyped["missing"], mistyped["unknown"]) == (["name"], ["nmae"])
    unknown = api.post(f"{PROMPT}/render", {"vars": {"name": "Ada", "nmae": "x"}}).expect(422)
    assert (unknown["missing"], unknown["unknown"]) == ([], ["nmae"])
    assert "nmae" in unknown["detail"]
    assert unknown["code"] == "invalid"


@pytest.mark.parametrize(
    ("body", "status", "sentence"),
    [
        ({"vars": []}, 422, "vars: expected object"),
        ({"variables": {}}, 422, "There is no field 'variables'"),
        ({"vars": {}, "label": "none"}, 404, "has no label 'none'"),
        ({"vars": {}, "label": "a", "version": 1}, 422, "not both"),
    ],
)
def test_a_bad_rendering_is_refused(api: ApiClient, body: Any, status: int, sentence: str) -> None:
    assert sentence in api.post(f"{PROMPT}/render", body).expect(status)["detail"]


def test_every_change_is_announced_after_its_commit(
    api: ApiClient,
    project: Project,
    announced: list[PromptEvent],
    django_capture_on_commit_callbacks: Callable[..., Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    with django_capture_on_commit_callbacks(execute=True):
        add(api, "two", labels=["production"])
        assert announced == []
    with django_capture_on_commit_callbacks(execute=True):
        api.delete(f"{PROMPT}/labels/production").expect(204)
        api.delete(PROMPT).expect(204)
    of_prompt = {"project_id": project.pk, "prompt": "support/greeting"}
    assert announced == [
        VersionCreated(version=2, **of_prompt),
        LabelMoved(label="production", version=2, **of_prompt),
        LabelMoved(label="production", version=None, **of_prompt),
        PromptDeleted(**of_prompt),
    ]
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_what_is_refused_is_not_announced(
    api: ApiClient,
    prompt: Prompt,
    announced: list[PromptEvent],
    django_capture_on_commit_callbacks: Callable[..., Any],
) -> None:
    with django_capture_on_commit_callbacks(execute=True):
        api.post(f"{PROMPT}/versions", {"template": "x", "labels": ["latest"]}).expect(422)
        api.post(f"{PROMPT}/versions", {"template": "Hello {{ name }}"}).expect(200)
    assert announced == []
