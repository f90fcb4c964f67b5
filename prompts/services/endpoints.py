"""Writes to model endpoints; their secrets are encrypted here and leave only inside a call."""

from functools import partial
from typing import Any, TypedDict, Unpack

import msgspec
from django.db import IntegrityError, transaction
from django.db.models.functions import Now

from autoforge.encryption import encrypt
from autoforge.errors import Conflict, InvalidInput, NotFound
from autoforge.models import Project
from prompts.endpoint_copies import forget_endpoint
from prompts.endpoint_rules import check_endpoint, check_url
from prompts.llm.providers.base import Limits, Prices
from prompts.models import ModelEndpoint, ProviderName
from prompts.names import check_endpoint_name

MAX_API_KEY_CHARS = 4_000


class EndpointChanges(TypedDict, total=False):
    """What of an endpoint can change; a key that is absent stays, None takes the value away."""

    provider: str
    model: str | None
    base_url: str | None
    api_key: str | None
    params: dict[str, Any] | None
    prices: Prices | None
    limits: Limits | None
    settings: dict[str, Any] | None


def create_endpoint(project: Project, *, name: str, **fields: Unpack[EndpointChanges]) -> ModelEndpoint:
    """A model that can be called. Raises InvalidInput with a sentence, Conflict when the name is taken."""
    endpoint = ModelEndpoint(project=project, name=check_endpoint_name(name))
    apply_changes(endpoint, fields)
    try:
        with transaction.atomic():
            endpoint.save(force_insert=True)
    except IntegrityError as error:
        raise Conflict(f"There is a model {name!r} already: change it with PATCH models/{name}.") from error
    return endpoint


@transaction.atomic
def change_endpoint(endpoint: ModelEndpoint, **changes: Unpack[EndpointChanges]) -> ModelEndpoint:
    """Store `changes`. Raises InvalidInput as `apply_changes`, NotFound."""
    locked = ModelEndpoint.objects.select_for_update().filter(pk=endpoint.pk).first()
    if locked is None:
        raise NotFound(f"The model {endpoint.name!r} has just been deleted.")
    if columns := apply_changes(locked, changes):
        locked.updated_at = Now()
        locked.save(update_fields=[*columns, "updated_at"])
        transaction.on_commit(partial(forget_endpoint, locked.project_id, locked.name))
    return locked


def apply_changes(endpoint: ModelEndpoint, changes: EndpointChanges) -> list[str]:
    """Set and check `changes` on `endpoint` without storing it; the names of the columns that were set.

    Raises InvalidInput with a sentence. A stored secret never follows to another address: a new base_url
    or provider needs its key again.
    """
    if url := changes.get("base_url"):
        check_url(url)
    before = (endpoint.provider, endpoint.base_url)
    columns = _set_columns(endpoint, changes)
    is_elsewhere = before != (endpoint.provider, endpoint.base_url)
    if is_elsewhere and endpoint.encrypted_api_key and "api_key" not in changes:
        raise InvalidInput(
            "The stored api_key belongs to the old address: send api_key along with the new "
            "base_url or provider, or null to forget it."
        )
    check_endpoint(endpoint)
    return columns


def delete_endpoint(endpoint: ModelEndpoint) -> None:
    """Delete `endpoint` with its secret; runs that used it keep their results."""
    endpoint.delete()
    transaction.on_commit(partial(forget_endpoint, endpoint.project_id, endpoint.name))


def _set_columns(endpoint: ModelEndpoint, changes: EndpointChanges) -> list[str]:
    columns: dict[str, Any] = {}
    for name, value in changes.items():
        columns |= _columns_of(name, value)
    if columns.get("provider", endpoint.provider) == ProviderName.LOCAL:
        columns["base_url"] = ""  # it listens where it was started
    for column, value in columns.items():
        setattr(endpoint, column, value)
    return list(columns)


def _columns_of(name: str, value: Any) -> dict[str, Any]:
    match name:
        case "api_key":
            return {"encrypted_api_key": _encrypted(value)}
        case "prices":
            return {
                "input_usd_per_mtok": value.input_per_mtok if value else None,
                "output_usd_per_mtok": value.output_per_mtok if value else None,
            }
        case "limits":
            return msgspec.structs.asdict(value or Limits())
        case "params" | "settings":
            return {name: value or {}}
        case _:
            return {name: value or ""}


def _encrypted(api_key: str | None) -> str:
    if not api_key:
        return ""
    if len(api_key) > MAX_API_KEY_CHARS or not api_key.isascii() or not api_key.isprintable():
        raise InvalidInput(f"api_key must have at most {MAX_API_KEY_CHARS} printable ASCII characters.")
    return encrypt(api_key)
