"""How a question is put: attempts and fallbacks, what the cache may answer, what limits are left."""

import time
from typing import Any

import openai
import pytest
from openai import OpenAI

from tests.fake_vendor import FakeVendor, Reply
from tests.prompts.compat.openai.conftest import Ask, Connect

PATIENCE_S = 20


def models_asked(vendor: FakeVendor) -> list[str]:
    return [call.body["model"] for call in vendor.calls]


@pytest.mark.parametrize("stream", [False, True])
def test_attempts_are_the_callers_to_bound(
    client: OpenAI, vendor: FakeVendor, ask: Ask, stream: bool
) -> None:
    """The installation's own bound is 1 here; a request may ask for more, and fallbacks wait for all."""
    vendor.script(*[Reply(status=429, headers={"retry-after-ms": "1"})] * 2)
    more = {"fallbacks": ["spare"], "max_attempts": 2}
    raw = client.chat.completions.with_raw_response.create(**ask(), stream=stream, extra_body=more)
    assert raw.headers["x-autoforge-model"] == "spare"
    assert models_asked(vendor) == ["vendor-gpt", "vendor-gpt", "vendor-spare"]


def test_a_model_that_is_too_slow_is_left_for_the_next(client: OpenAI, vendor: FakeVendor, ask: Ask) -> None:
    vendor.script(Reply(delay_s=30))
    more = {"fallbacks": ["spare"], "timeout_s": 0.2, "max_attempts": 1}
    raw = client.chat.completions.with_raw_response.create(**ask(), extra_body=more)
    assert raw.headers["x-autoforge-model"] == "spare"
    # The time that the first one took is not ours.
    assert float(raw.headers["x-autoforge-overhead-ms"]) < 200
    vendor.wait_until(lambda v: v.aborted == 1)
    assert all("timeout_s" not in call.body for call in vendor.calls)


def test_a_stored_prompt_names_its_fallbacks(client: OpenAI, vendor: FakeVendor, ask: Ask) -> None:
    vendor.script(Reply(status=500))
    question = {"model": "prompt:careful", "messages": ask()["messages"], "metadata": {"name": "Ada"}}
    raw = client.chat.completions.with_raw_response.create(**question)
    assert raw.headers["x-autoforge-model"] == "spare"
    assert models_asked(vendor) == ["vendor-gpt", "vendor-spare"]
    assert "fallbacks" not in vendor.calls[0].body


@pytest.mark.parametrize("stream", [False, True])
def test_the_head_says_whether_and_since_when_an_answer_was_kept(
    client: OpenAI, vendor: FakeVendor, ask: Ask, stream: bool
) -> None:
    question = ask()
    heads = []
    for _ in ("called", "cached"):
        raw = client.chat.completions.with_raw_response.create(**question, stream=stream)
        heads.append(raw.headers)
        if stream:
            list(raw.parse())
    assert [head["x-cache"] for head in heads] == ["MISS", "HIT"]
    assert "age" not in heads[0]
    assert 0 <= int(heads[1]["age"]) < PATIENCE_S
    assert vendor.count == 1


def test_an_answer_may_be_too_old(client: OpenAI, vendor: FakeVendor, ask: Ask) -> None:
    question = ask()

    def cached(**more: Any) -> str:
        return client.chat.completions.with_raw_response.create(**question, **more).headers["x-cache"]

    assert cached() == "MISS"
    time.sleep(0.02)
    assert cached(extra_headers={"Cache-Control": "max-age=3600"}) == "HIT"
    assert cached(extra_body={"cache": {"s-maxage": 3600}}) == "HIT"
    assert cached(extra_body={"cache": {"s-maxage": 0.01}}) == "MISS"
    assert cached(extra_headers={"Cache-Control": "max-age=0"}) == "MISS"
    assert vendor.count == 3


def test_an_answer_is_kept_as_long_as_asked(client: OpenAI, vendor: FakeVendor, ask: Ask) -> None:
    question = ask()
    brief = {"extra_body": {"cache": {"ttl": 0.05}}}
    client.chat.completions.create(**question, **brief)
    deadline = time.monotonic() + PATIENCE_S
    while vendor.count == 1 and time.monotonic() < deadline:
        client.chat.completions.create(**question)
        time.sleep(0.02)
    assert vendor.count == 2


def test_namespaces_share_no_answers(client: OpenAI, vendor: FakeVendor, ask: Ask) -> None:
    question = ask()
    heads = [
        client.chat.completions.with_raw_response.create(**question, extra_body={"cache": wish}).headers
        for wish in ({"namespace": "a"}, {"namespace": "b"}, {}, {"namespace": "a"})
    ]
    assert [head["x-cache"] for head in heads] == ["MISS", "MISS", "MISS", "HIT"]
    assert vendor.count == 3


@pytest.mark.parametrize("stream", [False, True])
def test_what_is_left_of_a_models_tokens_is_told_as_openai_does(
    client: OpenAI, vendor: FakeVendor, ask: Ask, stream: bool
) -> None:
    question = ask() | {"model": "metered", "max_tokens": 50}
    before = client.chat.completions.with_raw_response.create(**question, stream=stream).headers
    question["messages"] = ask()["messages"]
    after = client.chat.completions.with_raw_response.create(**question, stream=stream).headers
    assert before["x-ratelimit-limit-tokens"] == after["x-ratelimit-limit-tokens"] == "100000"
    left = [int(head["x-ratelimit-remaining-tokens"]) for head in (before, after)]
    assert 100_000 > left[0] > left[1] > 0
    assert 1 <= int(after["x-ratelimit-reset-tokens"].removesuffix("s")) <= 61
    assert "x-ratelimit-limit-tokens" not in client.models.with_raw_response.list().headers


def test_a_budget_refuses_what_may_cost_more_and_is_not_asked_again(
    connect: Connect, vendor: FakeVendor, ask: Ask
) -> None:
    """0.001 USD a month at 1 and 2 USD per million tokens, for an answer of 5 and 2 tokens."""
    poor = connect("poor", max_retries=2)
    paid = ask()
    raw = poor.chat.completions.with_raw_response.create(**paid, max_tokens=100)
    assert raw.headers["x-autoforge-cost-usd"] == "0.000009"
    for stream in (False, True):
        with pytest.raises(openai.RateLimitError, match="US dollars a month") as refused:
            poor.chat.completions.create(
                **ask(), max_tokens=500, stream=stream, extra_body={"fallbacks": ["spare"]}
            )
        assert (refused.value.code, refused.value.type) == ("insufficient_quota", "insufficient_quota")
        assert refused.value.response.headers["x-should-retry"] == "false"
    assert vendor.count == 1
    # What is kept costs nothing, what fails neither, and others with money are served.
    assert poor.chat.completions.create(**paid, max_tokens=100).choices[0].message.content == "Hello world"
    vendor.script(Reply(status=400))
    with pytest.raises(openai.BadRequestError):
        poor.chat.completions.create(**ask(), max_tokens=400)
    assert list(poor.chat.completions.create(**ask(), max_tokens=400, stream=True))
    connect("editor").chat.completions.create(**ask(), max_tokens=500)
    assert vendor.count == 4
