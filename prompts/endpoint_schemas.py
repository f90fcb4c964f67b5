"""What the model routes take and answer. Prices are numbers out; in also strings ("0.15"), exactly."""

from datetime import datetime
from decimal import Decimal
from typing import Any, Literal, Self

import msgspec
from msgspec import UNSET, UnsetType

from prompts.call_schemas import as_number
from prompts.llm.providers.base import Limits, Prices
from prompts.models import ModelEndpoint
from prompts.schemas import Input
from prompts.services import EndpointChanges

Provider = Literal["openai", "anthropic", "local", "simulated"]


class PricesIn(Input):
    """US dollars per million tokens."""

    input_per_mtok: Decimal
    output_per_mtok: Decimal


class LimitsIn(Input):
    """Null or absent is no limit."""

    requests_per_min: int | None = None
    tokens_per_min: int | None = None
    max_concurrency: int | None = None


class EndpointFields(Input):
    """Fields of an endpoint; those left out stay as they are. `api_key` is never answered."""

    model: str | UnsetType | None = UNSET
    base_url: str | UnsetType | None = UNSET
    api_key: str | UnsetType | None = UNSET
    params: dict[str, Any] | UnsetType | None = UNSET
    prices: PricesIn | UnsetType | None = UNSET
    limits: LimitsIn | UnsetType | None = UNSET
    settings: dict[str, Any] | UnsetType | None = UNSET

    def changes(self) -> EndpointChanges:
        """The fields that were sent, but the name."""
        sent: dict[str, Any] = {
            name: value for name, value in msgspec.structs.asdict(self).items() if value is not UNSET
        }
        sent.pop("name", None)
        if prices := sent.get("prices"):
            sent["prices"] = Prices(**msgspec.structs.asdict(prices))
        if limits := sent.get("limits"):
            sent["limits"] = Limits(**msgspec.structs.asdict(limits))
        return EndpointChanges(**sent)  # type: ignore[typeddict-item]  # the fields above are its keys


class NewEndpoint(EndpointFields, kw_only=True):
    name: str
    provider: Provider


class EndpointPatch(EndpointFields, kw_only=True):
    """`api_key` null removes the stored secret; `prices` and `limits` are replaced as a whole."""

    provider: Provider | UnsetType = UNSET


class EndpointPath(msgspec.Struct):
    name: str


class PricesOut(msgspec.Struct):
    input_per_mtok: float
    output_per_mtok: float


class EndpointOut(msgspec.Struct, kw_only=True):
    """A model that can be called; of its secret only whether there is one."""

    name: str
    provider: str
    model: str
    base_url: str | None
    has_api_key: bool
    params: dict[str, Any]
    prices: PricesOut | None
    limits: Limits
    settings: dict[str, Any]
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, endpoint: ModelEndpoint) -> Self:
        return cls(
            name=endpoint.name,
            provider=endpoint.provider,
            model=endpoint.model,
            base_url=endpoint.base_url or None,
            has_api_key=bool(endpoint.encrypted_api_key),
            params=endpoint.params,
            prices=_prices(endpoint.prices),
            limits=endpoint.limits,
            settings=endpoint.settings,
            created_at=endpoint.created_at,
            updated_at=endpoint.updated_at,
        )


def _prices(prices: Prices | None) -> PricesOut | None:
    if prices is None:
        return None
    return PricesOut(as_number(prices.input_per_mtok) or 0.0, as_number(prices.output_per_mtok) or 0.0)


class CheckOut(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Whether the endpoint answers: `text` when it does, `error` (a sentence) and `code` when not."""

    ok: bool
    latency_ms: float
    text: str | None = None
    error: str | None = None
    code: str | None = None
