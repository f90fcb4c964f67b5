"""The words every provider speaks: endpoint, request, completion, error."""

from decimal import Decimal
from typing import Any

import msgspec


class Prices(msgspec.Struct, frozen=True):
    """US dollars per million tokens."""

    input_per_mtok: Decimal
    output_per_mtok: Decimal


class Limits(msgspec.Struct, frozen=True):
    """What an endpoint allows; None is no limit."""

    requests_per_min: int | None = None
    tokens_per_min: int | None = None
    max_concurrency: int | None = None


class Endpoint(msgspec.Struct, frozen=True):
    """One model that can be called."""

    project: str
    name: str
    provider: str
    model: str
    base_url: str | None = None
    api_key: str | None = None
    params: dict[str, Any] = {}
    prices: Prices | None = None
    limits: Limits = Limits()
    settings: dict[str, Any] = {}
