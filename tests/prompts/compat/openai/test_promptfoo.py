"""promptfoo evaluates through `/v1`, unchanged but for two lines, and reads prompts as Langfuse's."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from tests.fake_vendor import FakeVendor
from tests.prompts.compat.openai import promptfoo
from tests.realtime.clients import WebProcess

# Its first installation may take minutes.
pytestmark = pytest.mark.timeout(900)

CASES = [
    {"vars": {"who": name}, "assert": [{"type": "equals", "value": "Hello world"}]} for name in ("Ann", "Bob")
]
# One more assertion where the model for embeddings is installed.
SIMILAR = {
    "type": "similar",
    "value": "Hello, world!",
    "threshold": 0.5,
    "provider": "openai:embedding:local-embeddings",
}


@pytest.fixture(scope="module", autouse=True)
def _promptfoo() -> None:
    promptfoo.install()


def environment_of(gateway: WebProcess) -> dict[str, str]:
    """What a user changes."""
    base_url = f"http://127.0.0.1:{gateway.port}/v1"
    return {"OPENAI_BASE_URL": base_url, "OPENAI_API_KEY": gateway.world["editor"]}


def results_of(report: dict[str, Any]) -> list[dict[str, Any]]:
    results: list[dict[str, Any]] = report["results"]["results"]
    return results


def test_endpoints_and_stored_prompts_are_its_openai_models(
    gateway: WebProcess, vendor: FakeVendor, tmp_path: Path
) -> None:
    has_embeddings = importlib.util.find_spec("wordllama") is not None
    config = {
        "prompts": ["Say {{who}} " + tmp_path.name],
        "providers": [
            {"id": "openai:chat:gpt", "label": "endpoint"},
            {
                "id": "openai:chat:prompt:support/greeting@production",
                "label": "prompt",
                "config": {"passthrough": {"vars": {"name": "Ada"}, "fallbacks": ["spare"]}},
            },
        ],
        "tests": [CASES[0], CASES[1] | {"assert": [*CASES[1]["assert"], *[SIMILAR] * has_embeddings]}],
    }
    report = promptfoo.evaluate(tmp_path, config, "--repeat", "2", **environment_of(gateway))
    results = results_of(report)
    assert report["exit_code"] == 0, [result.get("error") for result in results]
    assert len(results) == 8 and all(result["success"] for result in results)
    usage = [result["response"]["tokenUsage"] for result in results]
    assert all((used["prompt"], used["completion"], used["total"]) == (5, 2, 7) for used in usage)
    # The repeats were answered from the cache.
    assert vendor.count == 4
    asked = [call.body["messages"] for call in vendor.calls]
    said = {"role": "user", "content": f"Say Ann {tmp_path.name}"}
    assert [said] in asked
    assert [{"role": "user", "content": "Hello Ada"}, said] in asked


def test_prompts_come_from_the_langfuse_surface(
    gateway: WebProcess, vendor: FakeVendor, tmp_path: Path
) -> None:
    """`langfuse://name@label` is read by Langfuse's own client, and answered by the same installation."""
    config = {
        "prompts": ["langfuse://support/greeting@production:text"],
        "providers": ["openai:chat:gpt"],
        "tests": [case | {"vars": {"name": case["vars"]["who"] + tmp_path.name}} for case in CASES],
    }
    keys = {
        "LANGFUSE_HOST": f"http://127.0.0.1:{gateway.port}",
        "LANGFUSE_PUBLIC_KEY": gateway.world["editor_public"],
        "LANGFUSE_SECRET_KEY": gateway.world["editor"],
    }
    report = promptfoo.evaluate(tmp_path, config, **environment_of(gateway), **keys)
    results = results_of(report)
    assert report["exit_code"] == 0, [result.get("error") for result in results]
    asked = sorted(call.body["messages"][0]["content"] for call in vendor.calls)
    assert asked == [f"Hello {name}{tmp_path.name}" for name in ("Ann", "Bob")]
