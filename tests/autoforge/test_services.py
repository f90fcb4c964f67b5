"""Projects and keys are made, and keys end."""

import pytest

from autoforge.auth import hash_secret
from autoforge.models import ApiKey, Project, Role
from autoforge.services import create_api_key, get_or_create_project, revoke_api_key


@pytest.mark.django_db
def test_a_project_is_made_once() -> None:
    first, second = get_or_create_project("acme"), get_or_create_project("acme")
    assert first == second
    assert Project.objects.count() == 1


def test_a_key_is_random_and_kept_as_a_hash(project: Project) -> None:
    one = create_api_key(project, name="one", role=Role.VIEWER)
    two = create_api_key(project, name="two", role=Role.OWNER, rate_limit_per_min=0)
    assert one.secret.startswith("af_sk_") and one.key.public_id.startswith("af_pk_")
    assert len({one.secret, two.secret}) == len({one.key.public_id, two.key.public_id}) == 2
    stored = ApiKey.objects.get(name="one")
    assert stored.secret_hash == hash_secret(one.secret)
    assert (stored.rate_limit_per_min, two.key.rate_limit_per_min) == (None, 0)


def test_a_key_is_revoked_once_and_for_good(project: Project) -> None:
    key = create_api_key(project, name="one", role=Role.VIEWER).key
    revoke_api_key(key)
    first = ApiKey.objects.get().revoked_at
    assert first is not None
    revoke_api_key(key)
    assert ApiKey.objects.get().revoked_at == first
    assert not ApiKey.objects.usable().exists()
