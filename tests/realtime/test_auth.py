"""Rights at the handshake and afterwards."""

from decimal import Decimal
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth import get_user_model
from django.test import Client, override_settings
from django.utils import timezone

from autoforge.auth import Actor, Credentials, actor_of_key, actor_of_user
from autoforge.errors import NotAuthenticated, RateLimited
from autoforge.models import ApiKey, Membership, Project, Role
from autoforge.services import create_api_key, revoke_api_key
from realtime import hub, tickets
from realtime.auth import authenticate, is_own_origin
from realtime.connection import Connection
from realtime.rights import right_of, withdrawn
from realtime.topics import is_staff
from tests.conftest import ApiClient
from tests.realtime.following import Wire


@pytest.mark.parametrize(
    ("origin", "host", "is_own"),
    [
        ("https://forge.example", "forge.example", True),
        ("http://forge.example:8000", "forge.example:8000", True),
        ("https://FORGE.example", "forge.EXAMPLE", True),
        ("http://forge.example:9000", "forge.example:8000", False),
        ("https://evil.example", "forge.example", False),
        ("https://evil.example", "evil.example", False),
        ("https://app.partner.example", "forge.example", True),
        ("http://app.partner.example", "forge.example", False),
        ("https://partner.example.evil.example", "forge.example", False),
        ("null", "forge.example", False),
        ("", "forge.example", False),
        ("https://", "", False),
        ("http://[", "forge.example", False),
    ],
)
@override_settings(ALLOWED_HOSTS=["forge.example"], CSRF_TRUSTED_ORIGINS=["https://*.partner.example"])
def test_only_our_own_pages_may_use_a_session(origin: str, host: str, is_own: bool) -> None:
    assert is_own_origin({b"origin": origin.encode(), b"host": host.encode()}) is is_own


def member(project: Project, role: Role = Role.VIEWER, **fields: Any) -> Actor:
    user = get_user_model().objects.create_user(f"user{fields}", **fields)
    Membership.objects.create(user=user, project=project, role=role)
    return actor_of_user(user.pk, is_superuser=False, name="user", project_name=project.name)


def key_actor(project: Project) -> Actor:
    key = create_api_key(project, name="key", role=Role.EDITOR).key
    return Actor(project, Role.EDITOR, "key", key_id=key.pk)


def test_a_ticket_has_the_rights_of_the_moment_it_is_used(
    project: Project, django_assert_num_queries: Any
) -> None:
    actor = key_actor(project)
    ticket = tickets.issue(actor)
    with django_assert_num_queries(1):
        assert right_of(*tickets.redeem(ticket)) == right_of(actor)
    late = tickets.issue(actor)
    revoke_api_key(project.api_keys.get())
    with pytest.raises(NotAuthenticated):
        tickets.redeem(late)


def test_a_tickets_calls_are_paid_from_its_keys_budget(project: Project) -> None:
    key = create_api_key(project, name="key", role=Role.EDITOR, budget_usd=Decimal("0.5")).key
    redeemed, _ = tickets.redeem(tickets.issue(Actor(project, Role.EDITOR, "key", key_id=key.pk)))
    assert redeemed.budget_usd == Decimal("0.5")


def test_a_users_ticket_opens_their_project(project: Project, other_project: Project) -> None:
    actor = member(project)
    Membership.objects.create(user_id=actor.user_id, project=other_project, role=Role.OWNER)
    assert right_of(*tickets.redeem(tickets.issue(actor))) == right_of(actor)
    late = tickets.issue(actor)
    get_user_model().objects.update(is_active=False)
    with pytest.raises(NotAuthenticated):
        tickets.redeem(late)


def test_a_ticket_is_good_once(actor: Actor, project: Project) -> None:
    ticket = tickets.issue(key_actor(project))
    tickets.redeem(ticket)
    for wrong in (ticket, "", "made-up"):
        with pytest.raises(NotAuthenticated):
            tickets.redeem(wrong)


def test_tickets_are_for_those_with_a_key(viewer: ApiClient, nobody: ApiClient) -> None:
    assert viewer.post("/api/v1/ws-tickets").expect(201)["expires_in_s"] == 30
    nobody.post("/api/v1/ws-tickets").expect(401)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [({}, False), ({"is_staff": True}, True), ({"is_staff": True, "is_active": False}, False)],
)
def test_staff_is_a_person(project: Project, fields: dict[str, bool], expected: bool) -> None:
    assert is_staff(member(project, **fields)) is expected
    assert not is_staff(Actor.system(project))


def test_withdrawn_rights_are_found(project: Project, django_assert_max_num_queries: Any) -> None:
    kept, revoked = key_actor(project), key_actor(project)
    revoke_api_key(project.api_keys.get(pk=revoked.key_id))
    stays, leaves, changes = (member(project, first_name=name) for name in "abc")
    Membership.objects.filter(user_id=leaves.user_id).delete()
    Membership.objects.filter(user_id=changes.user_id).update(role=Role.OWNER)
    root = get_user_model().objects.create_superuser("root")
    superuser = actor_of_user(root.pk, is_superuser=True, name="root", project_name=project.name)
    actors = [kept, revoked, stays, leaves, changes, superuser]
    with django_assert_max_num_queries(4):
        assert withdrawn(map(right_of, actors)) == {right_of(each) for each in (revoked, leaves, changes)}


def test_however_many_keys_are_looked_up_by_one_query(
    project: Project, django_assert_num_queries: Any
) -> None:
    rights = {right_of(key_actor(project)) for _ in range(20)}
    with django_assert_num_queries(1):
        assert withdrawn(rights) == set()
    with django_assert_num_queries(0):
        assert withdrawn([]) == set()


def test_a_ticket_lasts_as_long_as_the_session_it_was_issued_to(project: Project, client: Client) -> None:
    actor = member(project, is_staff=True)
    client.force_login(get_user_model().objects.get(pk=actor.user_id))
    ticket = client.post("/api/v1/ws-tickets").json()["ticket"]
    right = right_of(*tickets.redeem(ticket), is_for_staff=True)
    assert withdrawn([right]) == set()
    get_user_model().objects.update(is_staff=False)
    assert withdrawn([right]) == {right}
    get_user_model().objects.update(is_staff=True)
    client.logout()
    assert withdrawn([right]) == {right}


def test_a_handshake_with_a_key_asks_the_database_once(
    project: Project, django_assert_num_queries: Any
) -> None:
    new = create_api_key(project, name="key", role=Role.VIEWER)
    ApiKey.objects.update(last_used_at=timezone.now())
    for queries in (1, 0):
        with django_assert_num_queries(queries):
            assert actor_of_key(Credentials(new.secret)).key_id == new.key.pk


@pytest.mark.django_db(transaction=True)
async def test_a_revoked_key_ends_its_open_websockets(project: Project) -> None:
    kept, revoked = [await sync_to_async(key_actor)(project) for _ in range(2)]
    the_hub, wires = hub.current(), [Wire(), Wire()]
    for wire, actor in zip(wires, (kept, revoked), strict=True):
        the_hub.enter(Connection(wire, actor))
    await project.api_keys.filter(pk=revoked.key_id).adelete()
    await the_hub.recheck()
    assert [[each["code"] for each in wire.sent] for wire in wires] == [[], [4401]]


@pytest.mark.django_db(transaction=True)
@override_settings(FAILED_LOGINS_PER_MIN=2)
async def test_who_tries_wrong_keys_is_soon_told_to_wait(project: Project) -> None:
    async def knock(address: str) -> None:
        headers = [(b"authorization", b"Bearer af_sk_wrong")]
        await authenticate({"headers": headers, "query_string": b"", "client": (address, 1)})

    for _ in range(2):
        with pytest.raises(NotAuthenticated):
            await knock("198.51.100.7")
    with pytest.raises(RateLimited):
        await knock("198.51.100.7")
    with pytest.raises(NotAuthenticated):
        await knock("198.51.100.8")


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("query", "session", "reason"),
    [
        (b"project=%00", "{session}", "The address holds a NUL character"),
        (b"project=acme%00&project=acme", "{session}", "The address holds a NUL character"),
        (b"ticket=%00", "{session}", "The address holds a NUL character"),
        (b"", r'"{session}\000"', "sign in"),
    ],
)
@override_settings(ALLOWED_HOSTS=["forge.example"])
async def test_what_no_column_holds_lets_nobody_in(
    project: Project, query: bytes, session: str, reason: str
) -> None:
    client = Client()
    user = await get_user_model().objects.aget(pk=(await sync_to_async(member)(project)).user_id)
    await client.aforce_login(user)
    key = client.cookies["sessionid"].value

    def scope(cookie: str, query: bytes) -> dict[str, Any]:
        headers = {
            "origin": "https://forge.example",
            "host": "forge.example",
            "cookie": f"sessionid={cookie}",
        }
        pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
        return {"headers": pairs, "query_string": query}

    with pytest.raises(NotAuthenticated, match=reason):
        await authenticate(scope(session.format(session=key), query))
    assert (await authenticate(scope(key, b""))).actor.project == project
