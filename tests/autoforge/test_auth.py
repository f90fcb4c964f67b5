"""Who may enter: keys by Bearer and Basic, sessions with CSRF, roles, revocation."""

import base64
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.test import Client
from django.utils import timezone

from autoforge.auth import key_copies
from autoforge.models import ApiKey, Membership, Project, Role
from autoforge.services import NewKey, create_api_key, revoke_api_key
from tests.conftest import ApiClient, client_of

URL = "/api/v1/prompts"
NEW = {"name": "p", "type": "text", "template": "x"}


@pytest.fixture
def key(project: Project) -> NewKey:
    return create_api_key(project, name="ci", role=Role.EDITOR)


def status_with(authorization: str) -> int:
    return Client().get(URL, headers={"Authorization": authorization}).status_code


def basic(public: str, secret: str) -> str:
    return "Basic " + base64.b64encode(f"{public}:{secret}".encode()).decode()


def test_a_secret_alone_or_as_a_pair(key: NewKey) -> None:
    assert status_with(f"Bearer {key.secret}") == 200
    assert status_with(f"bearer {key.secret}") == 200
    assert status_with(basic(key.key.public_id, key.secret)) == 200


@pytest.mark.parametrize(
    "header",
    [
        "Bearer af_sk_wrong",
        "Bearer",
        "Bearer ",
        "Digest abc",
        "Basic !!!",
        "Basic " + base64.b64encode(b"\xff\xfe").decode(),
        "Basic " + base64.b64encode(b"no colon").decode(),
        "af_sk_wrong",
    ],
)
@pytest.mark.django_db
def test_anything_else_is_refused_with_a_challenge(header: str) -> None:
    response = Client().get(URL, headers={"Authorization": header})
    assert response.status_code == 401
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.headers["WWW-Authenticate"].startswith("Bearer")


def test_the_two_parts_must_belong_together(key: NewKey, project: Project) -> None:
    other = create_api_key(project, name="other", role=Role.OWNER)
    for _ in range(2):  # looked up, then remembered
        assert status_with(basic(other.key.public_id, key.secret)) == 401
        assert status_with(basic("Ä", key.secret)) == 401
        assert status_with(basic(key.key.public_id, key.secret)) == 200


def test_the_secret_is_kept_only_as_a_hash(key: NewKey) -> None:
    stored = ApiKey.objects.values().get()
    assert key.secret not in str(stored)
    assert len(stored["secret_hash"]) == 64


def test_an_expired_key_is_refused(project: Project) -> None:
    past = timezone.now() - timedelta(seconds=1)
    expired = create_api_key(project, name="old", role=Role.OWNER, expires_at=past)
    assert status_with(f"Bearer {expired.secret}") == 401
    later = timezone.now() + timedelta(hours=1)
    valid = create_api_key(project, name="new", role=Role.OWNER, expires_at=later)
    assert status_with(f"Bearer {valid.secret}") == 200


def test_a_revoked_key_is_refused_at_once(key: NewKey) -> None:
    assert status_with(f"Bearer {key.secret}") == 200
    revoke_api_key(key.key)
    assert status_with(f"Bearer {key.secret}") == 401


def test_a_key_revoked_elsewhere_is_refused_once_the_copy_is_old(key: NewKey, settings: Any) -> None:
    settings.API_KEY_CACHE_S = 0
    assert status_with(f"Bearer {key.secret}") == 200
    ApiKey.objects.update(revoked_at=timezone.now())
    assert status_with(f"Bearer {key.secret}") == 401


def test_a_remembered_key_costs_no_query(key: NewKey, django_assert_num_queries: Any) -> None:
    bare = "/api/v1/prompts?limit=0"  # refused after the key was checked, before any other query
    client = ApiClient(key.secret)
    with django_assert_num_queries(2):  # the key, and the note of its use
        client.get(bare).expect(422)
    with django_assert_num_queries(0):
        client.get(bare).expect(422)


def test_the_last_use_is_noted_once_a_minute(key: NewKey) -> None:
    status_with(f"Bearer {key.secret}")
    first = ApiKey.objects.get().last_used_at
    assert first is not None
    key_copies.clear()
    status_with(f"Bearer {key.secret}")
    assert ApiKey.objects.get().last_used_at == first
    ApiKey.objects.update(last_used_at=first - timedelta(minutes=2))
    key_copies.clear()
    status_with(f"Bearer {key.secret}")
    assert ApiKey.objects.get().last_used_at >= first


def test_roles_include_each_other() -> None:
    assert [[role.includes(other) for other in Role] for role in Role] == [
        [True, False, False],
        [True, True, False],
        [True, True, True],
    ]


def test_a_viewers_key_only_reads(project: Project) -> None:
    viewer = client_of(project, Role.VIEWER)
    viewer.get(URL).expect(200)
    assert "This needs the role editor" in viewer.post(URL, NEW).expect(403)["detail"]


class Browser:
    """A signed-in person, with the CSRF check that test clients leave out."""

    def __init__(self, name: str, **fields: Any) -> None:
        self.user = get_user_model().objects.create_user(name, password="a long password", **fields)
        self.client = Client(enforce_csrf_checks=True)
        self.client.force_login(self.user)

    def post(self, **headers: str) -> Any:
        return self.client.post(URL, NEW, content_type="application/json", headers=headers)

    def with_token(self) -> dict[str, str]:
        token = "a" * 32
        self.client.cookies["csrftoken"] = token
        return {"X-CSRFToken": token}


@pytest.fixture
def browser(project: Project) -> Browser:
    browser = Browser("ada")
    Membership.objects.create(project=project, user=browser.user, role=Role.EDITOR)
    return browser


def test_a_session_reads_and_writes_with_a_csrf_token(browser: Browser) -> None:
    assert browser.client.get(URL).status_code == 200
    refused = browser.post()
    assert refused.status_code == 403
    assert "CSRF token" in refused.json()["detail"]
    created = browser.post(**browser.with_token())
    assert created.status_code == 201
    assert created.json()["created_by"] == "ada"


def test_a_key_needs_no_csrf_token(key: NewKey) -> None:
    client = Client(enforce_csrf_checks=True)
    headers = {"Authorization": f"Bearer {key.secret}"}
    assert client.post(URL, NEW, content_type="application/json", headers=headers).status_code == 201


def test_a_session_counts_only_where_its_user_is_a_member(browser: Browser, other_project: Project) -> None:
    chosen = lambda name: browser.client.get(URL, headers={"X-AutoForge-Project": name}).status_code  # noqa: E731  a local shorthand
    assert chosen("acme") == 200
    assert chosen(other_project.name) == 401
    assert chosen("nowhere") == 401


def test_a_session_without_membership_is_refused(project: Project) -> None:
    assert Browser("eve").client.get(URL).status_code == 401


def test_a_superuser_owns_every_project(project: Project, other_project: Project) -> None:
    root = Browser("root", is_superuser=True)
    assert root.client.get(URL).status_code == 200
    headers = {"X-AutoForge-Project": other_project.name} | root.with_token()
    assert root.post(**headers).status_code == 201
    assert other_project.prompts.count() == 1
    assert root.client.get(URL, headers={"X-AutoForge-Project": "nowhere"}).status_code == 401


def test_a_wrong_key_is_not_saved_by_a_session(browser: Browser) -> None:
    assert browser.client.get(URL, headers={"Authorization": "Bearer wrong"}).status_code == 401


def test_a_member_leaves_with_their_user(browser: Browser) -> None:
    browser.user.is_active = False
    browser.user.save()
    assert browser.client.get(URL).status_code == 401
