"""The registry of providers: one module for each vendor's protocol, one line for each here."""

from prompts.llm.providers.anthropic import AnthropicProvider
from prompts.llm.providers.base import Provider, ProviderError
from prompts.llm.providers.local import LocalProvider
from prompts.llm.providers.openai import OpenAIProvider
from prompts.llm.providers.simulated import SimulatedProvider

PROVIDERS: dict[str, Provider] = {
    "openai": OpenAIProvider(),
    "anthropic": AnthropicProvider(),
    "local": LocalProvider(),
    "simulated": SimulatedProvider(),
}


def provider_named(name: str) -> Provider:
    """Raises ProviderError (invalid_request) for an unknown name."""
    try:
        return PROVIDERS[name]
    except KeyError as error:
        known = ", ".join(PROVIDERS)
        raise ProviderError("invalid_request", f"There is no provider {name!r}: use {known}.") from error
