"""Rights that a test server lends, each in another way, and takes back."""

from django.contrib.auth import get_user_model
from django.contrib.sessions.backends.cached_db import SessionStore
from django.db.models.functions import Now
from django.test import Client

from autoforge.models import ApiKey, Membership, Project, Role
from autoforge.services import create_api_key, revoke_api_key

KEYS, USERS = ("kept", "revoked", "expired"), ("removed", "signed_out", "new_password")


def lend(borrower: str) -> dict[str, str]:
    """Secrets of keys and keys of sessions, by what will become of them."""
    project = Project.objects.get(name="acme")
    keys = {name: create_api_key(project, name=f"{borrower} {name}", role=Role.VIEWER) for name in KEYS}
    return {name: new.secret for name, new in keys.items()} | {
        name: _session_of(f"{borrower}-{name}", project) for name in USERS
    }


def take_back(borrower: str, lent: dict[str, str]) -> None:
    """All but what is `kept`."""
    revoke_api_key(ApiKey.objects.get(name=f"{borrower} revoked"))
    ApiKey.objects.filter(name=f"{borrower} expired").update(expires_at=Now())
    Membership.objects.filter(user__username=f"{borrower}-removed").delete()
    SessionStore(lent["signed_out"]).flush()
    user = get_user_model().objects.get(username=f"{borrower}-new_password")
    user.set_password("quite another password")
    user.save()


def _session_of(username: str, project: Project) -> str:
    user = get_user_model().objects.create_user(username, password="a long password")
    Membership.objects.create(user=user, project=project, role=Role.VIEWER)
    client = Client()
    client.force_login(user)
    return str(client.session.session_key)
