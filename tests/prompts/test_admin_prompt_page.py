"""The page of a prompt: its labels are moved and taken away there, its versions held against each other."""

from typing import Any

import pytest
from django.test import Client

from autoforge.auth import Actor
from autoforge.models import Membership, Project, Role
from prompts import services
from prompts.models import Label, LabelMove, Prompt
from tests.prompts.test_admin import sign_in


@pytest.fixture
def editor(project: Project) -> Client:
    return sign_in("ada", project)


def address(prompt: Prompt, action: str = "change") -> str:
    return f"/admin/prompts/prompt/{prompt.pk}/{action}/"


def change(client: Client, prompt: Prompt, action: str, **data: Any) -> str:
    """The page after it."""
    response = client.post(address(prompt, action), data, follow=True)
    assert response.status_code == 200, response.status_code
    return response.content.decode()


def pointed(prompt: Prompt) -> dict[str, int]:
    return {label.name: label.version.number for label in prompt.labels.select_related("version")}


def test_a_label_is_moved_and_taken_away(editor: Client, prompt: Prompt, actor: Actor) -> None:
    services.add_version(prompt, template="Good day {{ name }}", actor=actor)
    page = change(editor, prompt, "move-label", label="production", version=1)
    assert "production points at version 1." in page
    assert "production points at version 2." in change(
        editor, prompt, "move-label", label="production", version=2
    )
    assert pointed(prompt) == {"production": 2}
    page = change(editor, prompt, "remove-label", label="production")
    assert "The label production was taken away." in page
    assert "v2 → taken away" in page
    assert pointed(prompt) == {}
    assert {move.moved_by for move in LabelMove.objects.all()} == {"ada"}


@pytest.mark.parametrize(
    ("action", "data", "sentence"),
    [
        ("move-label", {"label": "latest", "version": 1}, "always names the newest version"),
        ("move-label", {"label": "x", "version": 9}, "has no version 9"),
        ("move-label", {"label": "x", "version": "two"}, "version must be a number"),
        ("move-label", {"label": "not one word", "version": 1}, "must have 1 to 64 letters"),
        ("remove-label", {"label": "x"}, "has no label"),
    ],
)
def test_what_cannot_be_is_said(
    editor: Client, prompt: Prompt, action: str, data: dict[str, Any], sentence: str
) -> None:
    assert sentence in change(editor, prompt, action, **data)
    assert not Label.objects.exists()


def test_a_protected_label_is_marked_and_obeys_only_owners(
    editor: Client, project: Project, prompt: Prompt, actor: Actor
) -> None:
    services.move_label(prompt, label="production", version=1, actor=actor)
    project.protected_labels = ["production"]
    project.save()
    assert "protected: only owners move it" in editor.get(address(prompt)).content.decode()
    assert "is protected" in change(editor, prompt, "remove-label", label="production")
    assert pointed(prompt) == {"production": 1}
    change(sign_in("olga", project, Role.OWNER), prompt, "remove-label", label="production")
    assert pointed(prompt) == {}


def test_who_may_not_change_it_finds_no_buttons(
    project: Project, other_project: Project, prompt: Prompt
) -> None:
    # An owner elsewhere is still a viewer here.
    looker, outsider = sign_in("lin", project, Role.VIEWER), sign_in("eve", other_project, Role.OWNER)
    user = Membership.objects.get(user__username="lin").user
    Membership.objects.create(project=other_project, user=user, role=Role.OWNER)
    assert "Point it there" not in looker.get(address(prompt)).content.decode()
    for action in ("move-label", "remove-label"):
        data = {"label": "production", "version": 1}
        assert looker.post(address(prompt, action), data).status_code == 403
        assert outsider.post(address(prompt, action), data).status_code == 404
        assert sign_in(f"root{action}", is_superuser=True).get(address(prompt, action)).status_code == 405
    assert outsider.get(address(prompt)).status_code == 404


def test_two_versions_are_held_against_each_other(editor: Client, prompt: Prompt, actor: Actor) -> None:
    assert "There is one version" in editor.get(address(prompt)).content.decode()
    services.add_version(prompt, template="Good day {{ name }}", config={"temperature": 0}, actor=actor)
    page = editor.get(address(prompt)).content.decode()
    assert "What changed from v1 to v2" in page
    assert '<span class="diff-removed">-Hello {{ name }}</span>' in page
    assert '<span class="diff-added">+Good day {{ name }}</span>' in page
    assert "temperature" in page
    page = editor.get(f"{address(prompt)}?from=2&to=1").content.decode()
    assert '<span class="diff-added">+Hello {{ name }}</span>' in page
    for nonsense in ("from=x&to=99999999999", "from=9&to=8", "from=²"):
        assert editor.get(f"{address(prompt)}?{nonsense}").status_code == 200


def test_templates_are_text_on_it(editor: Client, prompt: Prompt, actor: Actor) -> None:
    services.add_version(prompt, template="<script>alert(1)</script>", message="<b>x</b>", actor=actor)
    page = editor.get(address(prompt)).content.decode()
    assert "<script>alert" not in page and "<b>x</b>" not in page


def test_it_costs_the_same_whatever_there_is(
    editor: Client, prompt: Prompt, actor: Actor, django_assert_max_num_queries: Any
) -> None:
    for number in range(2, 30):
        services.add_version(prompt, template=f"v{number}", labels=[f"l{number}"], actor=actor)
    editor.get(address(prompt))
    with django_assert_max_num_queries(13):
        assert editor.get(address(prompt)).status_code == 200


def test_a_model_has_a_button_that_checks_it(editor: Client, endpoint: Any, project: Project) -> None:
    for page in ("/admin/prompts/modelendpoint/", f"/admin/prompts/modelendpoint/{endpoint.pk}/change/"):
        body = editor.get(page).content.decode()
        assert 'data-check="/api/v1/models/echo/check" data-project="acme"' in body, page
        assert "prompts/check.js" in body, page
