"""Writes to projects and keys."""

import re
import secrets
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from django.db import transaction
from django.db.models.functions import Now

from autoforge.auth import hash_secret, key_copies, new_secret
from autoforge.errors import InvalidInput
from autoforge.models import ApiKey, Project, Role

MAX_RATE_LIMIT_PER_MIN = 1_000_000_000
MAX_BUDGET_USD = 1_000_000
_PROJECT_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key just made; `secret` is never shown again."""

    key: ApiKey
    secret: str


def get_or_create_project(name: str) -> Project:
    """The project called `name`. Raises InvalidInput unless it is 1 to 64 letters, digits, - or _."""
    if not _PROJECT_NAME.fullmatch(name):
        raise InvalidInput(f"The project's name {name!r} must have 1 to 64 letters, digits, - or _.")
    return Project.objects.get_or_create(name=name)[0]


@transaction.atomic
def create_api_key(
    project: Project,
    *,
    name: str,
    role: Role,
    expires_at: datetime | None = None,
    rate_limit_per_min: int | None = None,
    budget_usd: Decimal | None = None,
) -> NewKey:
    """A key of `project`; `rate_limit_per_min` None takes the default, 0 lifts the limit.

    `budget_usd` is what its calls of models may cost in a calendar month. Raises InvalidInput for a
    negative limit or budget.
    """
    if budget_usd is not None and not (budget_usd.is_finite() and 0 <= budget_usd < MAX_BUDGET_USD):
        raise InvalidInput(f"The budget is 0 to {MAX_BUDGET_USD} US dollars a month, not {budget_usd}.")
    if rate_limit_per_min is not None and not 0 <= rate_limit_per_min <= MAX_RATE_LIMIT_PER_MIN:
        raise InvalidInput(
            f"The rate limit is 0 (none) to {MAX_RATE_LIMIT_PER_MIN} requests per minute, "
            f"not {rate_limit_per_min}."
        )
    secret = new_secret()
    key = ApiKey.objects.create(
        project=project,
        name=name,
        role=role,
        public_id=f"af_pk_{secrets.token_urlsafe(12)}",
        secret_hash=hash_secret(secret),
        expires_at=expires_at,
        rate_limit_per_min=rate_limit_per_min,
        budget_usd=budget_usd,
    )
    return NewKey(key, secret)


def revoke_api_key(key: ApiKey) -> None:
    """End `key` for good; other processes notice within AUTOFORGE_API_KEY_CACHE seconds."""
    ApiKey.objects.filter(pk=key.pk, revoked_at=None).update(revoked_at=Now())
    key_copies.clear()
