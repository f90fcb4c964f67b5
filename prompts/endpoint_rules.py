"""What each provider needs of an endpoint, checked before it is stored."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, TypeVar

import msgspec

from autoforge.errors import InvalidInput, validation_sentence
from prompts.llm.client import check_base_url
from prompts.llm.providers.simulated import SimulationSettings
from prompts.models import ModelEndpoint, ProviderName

T = TypeVar("T", bound=msgspec.Struct)

MAX_USD_PER_MTOK = Decimal(100_000)
MAX_PER_MIN = 100_000_000
MAX_CONCURRENCY = 100_000
MAX_SIMULATED_MS = 600_000
_SET_BY_THE_CALL = frozenset({"model", "messages", "stream", "stream_options", "system"})
_NO_PARAMS = _SET_BY_THE_CALL | {"fallbacks"}
_LIMITS = {
    "requests_per_min": MAX_PER_MIN,
    "tokens_per_min": MAX_PER_MIN,
    "max_concurrency": MAX_CONCURRENCY,
}


class CallSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`settings` of every model that is not simulated; `stream` false is for servers that cannot stream."""

    stream: bool = True


def check_endpoint(endpoint: ModelEndpoint) -> None:
    """Raises InvalidInput with a sentence for the first thing wrong with an endpoint's fields."""
    if endpoint.provider not in ProviderName:
        raise InvalidInput(f"provider must be one of {', '.join(ProviderName)}, not {endpoint.provider!r}.")
    _check_identity(endpoint)
    check_params(endpoint.params)
    _check_prices(endpoint)
    _check_limits(endpoint)
    _check_settings(endpoint)


def check_url(url: str) -> None:
    """Raises InvalidInput if no endpoint may live at `url`."""
    try:
        check_base_url(url)
    except ValueError as error:
        raise InvalidInput(str(error)) from error


def check_params(params: Mapping[str, Any]) -> Mapping[str, Any]:
    """`params`. Raises InvalidInput for those that a call sets itself."""
    if clash := [name for name in params if name in _SET_BY_THE_CALL]:
        raise InvalidInput(f"params must not contain {', '.join(clash)}: the call sets them itself.")
    return params


def own_params(config: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters in a prompt's config, which may also name a model and its fallbacks."""
    return {name: value for name, value in config.items() if name not in _NO_PARAMS}


def _check_identity(endpoint: ModelEndpoint) -> None:
    provider = endpoint.provider
    if provider in (ProviderName.OPENAI, ProviderName.ANTHROPIC) and not endpoint.model:
        raise InvalidInput(f"The provider {provider} needs 'model': the vendor's id of the model.")
    if len(endpoint.model) > 200 or len(endpoint.base_url) > 500:
        raise InvalidInput("model has at most 200 characters and base_url at most 500.")
    if provider == ProviderName.ANTHROPIC and not endpoint.encrypted_api_key:
        raise InvalidInput("The provider anthropic needs 'api_key'.")


def _check_prices(endpoint: ModelEndpoint) -> None:
    for price in (endpoint.input_usd_per_mtok, endpoint.output_usd_per_mtok):
        if price is not None and not (price.is_finite() and 0 <= price <= MAX_USD_PER_MTOK):
            raise InvalidInput(f"A price is between 0 and {MAX_USD_PER_MTOK} US dollars per million tokens.")


def _check_limits(endpoint: ModelEndpoint) -> None:
    for name, most in _LIMITS.items():
        limit = getattr(endpoint, name)
        if limit is not None and not 1 <= limit <= most:
            raise InvalidInput(f"limits.{name} is between 1 and {most}, or null for no limit; not {limit}.")


def _check_settings(endpoint: ModelEndpoint) -> None:
    if endpoint.provider == ProviderName.SIMULATED:
        _check_simulation(_converted(endpoint.settings, SimulationSettings))
    else:
        _converted(endpoint.settings, CallSettings)


def _converted(settings: dict[str, Any], kind: type[T]) -> T:
    try:
        return msgspec.convert(settings, kind)
    except msgspec.ValidationError as error:
        known = ", ".join(kind.__struct_fields__)
        raise InvalidInput(f"settings: {validation_sentence(str(error))} They are: {known}.") from error


def _check_simulation(settings: SimulationSettings) -> None:
    ranges: dict[str, tuple[float, float]] = {
        "latency_ms": (0, MAX_SIMULATED_MS),
        "jitter_ms": (0, MAX_SIMULATED_MS),
        "tokens_per_s": (0.001, 1_000_000),
        "error_rate": (0, 1),
        "rate_limit_every": (1, 1_000_000),
    }
    for name, (least, most) in ranges.items():
        value = getattr(settings, name)
        if value is not None and not least <= value <= most:
            raise InvalidInput(f"settings.{name} is between {least:g} and {most:g}, not {value}.")
