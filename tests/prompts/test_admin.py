"""The admin desk: members see their projects, viewers only look, secrets never show."""

import re
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.test import Client

from autoforge.auth import Actor
from autoforge.encryption import decrypt
from autoforge.models import ApiKey, Membership, Project, Role
from autoforge.services import create_api_key
from prompts import services
from prompts.models import Label, LabelMove, ModelEndpoint, Prompt, PromptVersion
from tests.conftest import ApiClient

SECRET = "sk-very-secret-123"


def sign_in(name: str, project: Project | None = None, role: Role = Role.EDITOR, **fields: Any) -> Client:
    """A signed-in member of staff."""
    user = get_user_model().objects.create_user(name, password="a long password", is_staff=True, **fields)
    if project is not None:
        Membership.objects.create(project=project, user=user, role=role)
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def editor(project: Project) -> Client:
    return sign_in("ada", project)


@pytest.fixture
def looker(project: Project) -> Client:
    return sign_in("lin", project, Role.VIEWER)


@pytest.fixture
def outsider(other_project: Project) -> Client:
    return sign_in("eve", other_project, Role.OWNER)


@pytest.fixture
def root(db: None) -> Client:
    return sign_in("root", is_superuser=True)


@pytest.fixture
def keyed(project: Project) -> ModelEndpoint:
    return services.create_endpoint(project, name="gpt", provider="openai", model="m", api_key=SECRET)


def pages_of(prompt: Prompt, endpoint: ModelEndpoint) -> list[str]:
    version = prompt.versions.get()
    return [
        f"/admin/prompts/prompt/{prompt.pk}/change/",
        f"/admin/prompts/prompt/{prompt.pk}/history/",
        f"/admin/prompts/promptversion/{version.pk}/change/",
        f"/admin/prompts/modelendpoint/{endpoint.pk}/change/",
    ]


LISTS = ["/admin/prompts/prompt/", "/admin/prompts/promptversion/", "/admin/prompts/modelendpoint/"]


def test_members_see_their_projects(
    editor: Client, looker: Client, root: Client, prompt: Prompt, keyed: ModelEndpoint
) -> None:
    for client in (editor, looker, root):
        for page in [*LISTS, *pages_of(prompt, keyed)]:
            response = client.get(page)
            assert response.status_code == 200, page
        listed = client.get(LISTS[0]).content.decode()
        assert "support/greeting" in listed


def test_an_outsider_gets_nothing(outsider: Client, prompt: Prompt, keyed: ModelEndpoint) -> None:
    for page in pages_of(prompt, keyed):
        assert outsider.get(page).status_code == 404, page
    for page in LISTS:
        body = outsider.get(page).content.decode()
        assert "support/greeting" not in body and "gpt" not in body and "acme" not in body
    delete = f"/admin/prompts/prompt/{prompt.pk}/delete/"
    assert outsider.post(delete, {"post": "yes"}).status_code == 404
    assert Prompt.objects.filter(pk=prompt.pk).exists()


def test_staff_without_a_project_see_no_desk(prompt: Prompt) -> None:
    client = sign_in("nobody")
    assert client.get(LISTS[0]).status_code == 403
    assert LISTS[0] not in client.get("/admin/").content.decode()


def test_a_prompt_page_shows_versions_labels_and_moves(editor: Client, prompt: Prompt, actor: Actor) -> None:
    services.move_label(prompt, label="production", version=1, actor=actor)
    body = editor.get(f"/admin/prompts/prompt/{prompt.pk}/change/").content.decode()
    assert "production" in body
    assert actor.name in body
    version = prompt.versions.get()
    assert (
        "Hello {{ name }}"
        in editor.get(f"/admin/prompts/promptversion/{version.pk}/change/").content.decode()
    )


def test_content_cannot_be_changed(editor: Client, root: Client, prompt: Prompt) -> None:
    version = prompt.versions.get()
    for client in (editor, root):
        change = f"/admin/prompts/promptversion/{version.pk}/change/"
        assert client.post(change, {"template": '"x"', "number": 9}).status_code == 403
        assert client.post(f"/admin/prompts/promptversion/{version.pk}/delete/").status_code == 403
        assert client.post(f"/admin/prompts/prompt/{prompt.pk}/change/", {"name": "x"}).status_code == 403
        assert client.get("/admin/prompts/prompt/add/").status_code == 403
    assert PromptVersion.objects.get().template == "Hello {{ name }}"


def point(client: Client, version: PromptVersion, label: str) -> str:
    """The page after the action."""
    data = {"action": "point_label", "label": label, "_selected_action": [version.pk], "index": 0}
    return client.post(LISTS[1], data, follow=True).content.decode()


def test_a_label_is_moved_by_an_action(editor: Client, prompt: Prompt) -> None:
    version = prompt.versions.get()
    assert "production points at support/greeting v1" in point(editor, version, "production")
    assert Label.objects.get().version == version
    assert LabelMove.objects.get().moved_by == "ada"
    assert "always names the newest version" in point(editor, version, "latest")


def test_a_protected_label_obeys_only_owners(
    editor: Client, project: Project, prompt: Prompt, root: Client
) -> None:
    project.protected_labels = ["production"]
    project.save()
    version = prompt.versions.get()
    assert "is protected" in point(editor, version, "production")
    assert not Label.objects.exists()
    point(root, version, "production")
    assert Label.objects.exists()
    delete = f"/admin/prompts/prompt/{prompt.pk}/delete/"
    assert "is protected" in editor.post(delete, {"post": "yes"}, follow=True).content.decode()
    assert Prompt.objects.exists()
    root.post(delete, {"post": "yes"})
    assert not Prompt.objects.exists()


def test_a_viewer_moves_and_deletes_nothing(
    looker: Client, other_project: Project, prompt: Prompt, keyed: ModelEndpoint
) -> None:
    # An editor elsewhere is still a viewer here.
    user = get_user_model().objects.get(username="lin")
    Membership.objects.create(project=other_project, user=user, role=Role.OWNER)
    page = point(looker, prompt.versions.get(), "production")
    assert "needs the role editor" in page
    assert not Label.objects.exists()
    for page in pages_of(prompt, keyed):
        if "history" not in page:
            assert looker.post(page, {"name": "x"}).status_code == 403
            assert looker.post(page.replace("change", "delete"), {"post": "yes"}).status_code == 403


FORM = {
    "provider": "openai",
    "model": "gpt-4.1",
    "base_url": "",
    "params": '{"temperature": 0}',
    "input_usd_per_mtok": "0.5",
    "output_usd_per_mtok": "1.5",
    "requests_per_min": "60",
    "tokens_per_min": "",
    "max_concurrency": "",
    "settings": "{}",
    "api_key": "",
}


def test_an_endpoint_is_made_and_changed_and_its_secret_never_shown(editor: Client, project: Project) -> None:
    add = "/admin/prompts/modelendpoint/add/"
    made = editor.post(add, FORM | {"project": project.pk, "name": "gpt", "api_key": SECRET}, follow=True)
    endpoint = ModelEndpoint.objects.get()
    assert decrypt(endpoint.encrypted_api_key) == SECRET
    assert endpoint.requests_per_min == 60
    change = f"/admin/prompts/modelendpoint/{endpoint.pk}/change/"
    shown = [made, editor.get(change), editor.get(change.replace("change", "history")), editor.get(LISTS[2])]
    assert not [page for page in shown if SECRET in page.content.decode()]
    assert not [page for page in shown if endpoint.encrypted_api_key in page.content.decode()]
    editor.post(change, FORM | {"model": "gpt-5"})
    endpoint.refresh_from_db()
    assert (endpoint.model, decrypt(endpoint.encrypted_api_key)) == ("gpt-5", SECRET)
    editor.post(change, FORM | {"forget_api_key": "on"})
    endpoint.refresh_from_db()
    assert endpoint.encrypted_api_key == ""


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"base_url": "http://127.0.0.1/v1"}, "loopback"),
        ({"base_url": "https://elsewhere.example.com/v1"}, "belongs to the old address"),
        ({"settings": '{"latency_ms": 1}'}, "They are: stream."),
        ({"output_usd_per_mtok": ""}, "Give both prices or none"),
        ({"provider": "acme"}, "Select a valid choice"),
    ],
)
def test_the_form_has_the_apis_rules(
    editor: Client, keyed: ModelEndpoint, change: dict[str, str], sentence: str
) -> None:
    page = editor.post(f"/admin/prompts/modelendpoint/{keyed.pk}/change/", FORM | change)
    assert page.status_code == 200
    assert sentence in page.content.decode()
    assert ModelEndpoint.objects.values().get() == ModelEndpoint.objects.filter(pk=keyed.pk).values().get()
    keyed.refresh_from_db()
    assert keyed.model == "m"


def test_an_endpoint_goes_only_into_own_projects(editor: Client, other_project: Project) -> None:
    form = FORM | {"project": other_project.pk, "name": "spy"}
    page = editor.post("/admin/prompts/modelendpoint/add/", form)
    assert "Select a valid choice" in page.content.decode()
    assert not ModelEndpoint.objects.exists()


def test_lists_cost_the_same_whatever_their_length(
    root: Client, project: Project, actor: Actor, django_assert_max_num_queries: Any
) -> None:
    for number in range(12):
        services.create_prompt(
            project, name=f"p{number}", type="text", template="x", labels=["a", "b"], actor=actor
        )
        services.create_endpoint(project, name=f"m{number}", provider="local")
    for page in LISTS:
        with django_assert_max_num_queries(12):
            assert root.get(page).status_code == 200


def test_owners_revoke_their_projects_keys(project: Project, editor: Client, outsider: Client) -> None:
    key = create_api_key(project, name="ci", role=Role.VIEWER).key
    owner = sign_in("olga", project, Role.OWNER)
    keys = "/admin/autoforge/apikey/"
    data = {"action": "revoke", "_selected_action": [key.pk], "index": 0}
    assert editor.post(keys, data).status_code == 403
    outsider.post(keys, data)
    assert ApiKey.objects.get().revoked_at is None
    assert "ci" in owner.get(keys).content.decode()
    owner.post(keys, data)
    assert ApiKey.objects.get().revoked_at is not None
    page = owner.get(f"{keys}{key.pk}/change/")
    assert key.secret_hash not in page.content.decode()


def test_owners_make_keys_whose_secret_is_shown_once(
    project: Project, other_project: Project, editor: Client, nobody: ApiClient
) -> None:
    owner, add = sign_in("olga", project, Role.OWNER), "/admin/autoforge/apikey/add/"
    form = {"project": project.pk, "name": "ci", "role": "viewer", "expires_at_0": "", "expires_at_1": ""}
    assert editor.post(add, form).status_code == 403
    assert owner.post(add, form | {"project": other_project.pk}).status_code == 200
    assert not ApiKey.objects.exists()
    page = owner.post(add, form).content.decode()
    secret = re.search(r"af_sk_[\w-]+", page)
    assert secret and "no-store" in owner.post(add, form).headers["Cache-Control"]
    asked = nobody.with_headers(authorization=f"Bearer {secret.group()}")
    asked.get("/api/v1/prompts").expect(200)
    asked.post("/api/v1/datasets", {"name": "d"}).expect(403)
    keys = "/admin/autoforge/apikey/"
    for again in (keys, f"{keys}{ApiKey.objects.earliest('pk').pk}/change/", add):
        assert "af_sk_" not in owner.get(again).content.decode(), again
