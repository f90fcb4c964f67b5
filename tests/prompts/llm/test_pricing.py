"""What calls cost, and the bound that budgets reserve."""

from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prompts.llm.pricing import DEFAULT_MAX_OUTPUT_TOKENS, cost_usd, estimate_tokens, estimate_usd
from prompts.llm.providers.base import Endpoint, Prices, ProviderError, Request, Usage, merge_params

OWN = Endpoint("p", "m", "openai", "x", prices=Prices(Decimal(3), Decimal(15)))
LISTED = Endpoint("p", "m", "openai", "gpt-4o-mini")


def test_own_prices_come_first():
    assert cost_usd(OWN, Usage(1_000_000, 100_000)) == Decimal("4.5")
    assert cost_usd(OWN, Usage(1, 0)) == Decimal("0.000003")


def test_vendors_prices_are_known_offline():
    assert cost_usd(LISTED, Usage(1_000_000, 1_000_000)) == Decimal("0.75")
    claude = msgspec.structs.replace(LISTED, provider="anthropic", model="claude-3-5-haiku-latest")
    assert cost_usd(claude, Usage(1_000_000, 0)) == Decimal("0.8")


def test_cached_tokens_are_cheaper():
    cached = cost_usd(LISTED, Usage(1_000_000, 0, cached_input_tokens=1_000_000))
    assert cached == Decimal("0.075")


@pytest.mark.parametrize(
    "changes", [{"model": "my-own-finetune"}, {"base_url": "http://llm.example/v1"}, {"model": ""}], ids=str
)
def test_unknown_prices_are_unknown(changes: dict):
    assert cost_usd(msgspec.structs.replace(LISTED, **changes), Usage(1, 1)) is None


@pytest.mark.parametrize("endpoint", [OWN, LISTED])
def test_unknown_usage_has_no_price(endpoint: Endpoint):
    assert cost_usd(endpoint, Usage()) is None


@pytest.mark.parametrize("provider", ["local", "simulated"])
def test_models_of_this_machine_are_free_unless_priced(provider: str):
    assert cost_usd(msgspec.structs.replace(LISTED, provider=provider), Usage()) == 0
    priced = msgspec.structs.replace(OWN, provider=provider)
    assert cost_usd(priced, Usage(1_000_000, 0)) == 3


@given(st.text(), st.integers(1, 100))
def test_an_estimate_is_an_upper_bound(text: str, max_tokens: int):
    messages = [{"role": "user", "content": text}]
    at_worst = Usage(len(text.encode("utf-8", "replace")), max_tokens)
    assert estimate_usd(OWN, messages, {"max_tokens": max_tokens}) >= (cost_usd(OWN, at_worst) or 0)


@pytest.mark.parametrize("wrong", ["many", [2], {}, -1, 1.5])
def test_an_estimate_survives_what_the_vendor_will_refuse(wrong: Any):
    assert estimate_usd(OWN, [], {"n": wrong, "max_tokens": wrong}) == estimate_usd(OWN, [], {})
    assert estimate_tokens([], {"max_tokens": wrong}) == estimate_tokens([], {})
    assert estimate_usd(OWN, [], {"n": 10**400, "max_tokens": 10**400}) < 10**12


def test_an_estimate_counts_choices_images_and_the_default():
    def outputs(**params: int) -> Decimal:
        return estimate_usd(OWN, [], params) * 1_000_000 / 15

    assert outputs() == DEFAULT_MAX_OUTPUT_TOKENS
    assert outputs(max_completion_tokens=7, n=3) == 21
    image = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x" * 10**6}}]}
    assert 0 < estimate_usd(OWN, [image], {"max_tokens": 1}) < Decimal("0.05")
    assert estimate_usd(msgspec.structs.replace(LISTED, model="unknown"), [image], {}) == 0


def test_an_estimate_counts_what_the_model_reads_beside_the_messages():
    schema = {"type": "object", "properties": {"città" * 1_000: {"type": "string"}}}
    for name in ("tools", "functions", "response_format"):
        at_worst = Usage(6_000, 1)
        assert estimate_usd(OWN, [], {"max_tokens": 1, name: schema}) >= (cost_usd(OWN, at_worst) or 0)
        assert estimate_tokens([], {name: schema}) >= 1_500
        assert estimate_usd(OWN, [], {name: None}) == estimate_usd(OWN, [], {})
    called = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "é" * 1_000}}]}
    assert estimate_usd(OWN, [called], {"max_tokens": 1}) >= (cost_usd(OWN, Usage(2_000, 1)) or 0)


def test_limits_are_charged_less_than_the_bound():
    messages = [{"role": "user", "content": "word " * 100}]
    assert 100 <= estimate_tokens(messages, {"max_tokens": 10}) <= 200


def test_parameters_are_merged_and_taken_away():
    merged = merge_params({"a": 1, "b": 1, "c": 1}, {"b": 2}, {"c": None, "d": 0})
    assert merged == {"a": 1, "b": 2, "d": 0}


def test_the_secret_shows_in_no_representation():
    secret = Endpoint("p", "m", "openai", "x", api_key="sk-secret")
    assert "sk-secret" not in f"{secret} {Request(secret, ())!r} {list(secret.__rich_repr__())}"


def test_an_error_survives_pickling():
    import pickle

    error = ProviderError("rate_limited", "Too fast.", 429, 1.5, is_retryable=True)
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.code, copy.status, copy.retry_after_s, copy.is_retryable) == (
        "Too fast.",
        "rate_limited",
        429,
        1.5,
        True,
    )
