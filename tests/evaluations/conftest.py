"""Fixtures of the evaluation tests: a prompt, a simulated model, a data set, and runs that end."""

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from autoforge.auth import Actor
from autoforge.models import Project
from evaluations import executor
from evaluations.events import RunEvent, run_event
from prompts.llm.cache import response_cache
from prompts.models import ModelEndpoint, Prompt
from prompts.services import create_endpoint, create_prompt
from tests.conftest import ApiClient

FINAL = {"finished", "failed", "cancelled", "over_budget"}
EQUALS = [{"type": "equals", "value": "{{ expected }}"}]


@pytest.fixture(autouse=True)
def _no_known_answers() -> None:
    """Every test begins with an empty response cache."""
    response_cache.cache_clear()
    asyncio.run(response_cache().clear())


@pytest.fixture
def prompt(project: Project, actor: Actor) -> Prompt:
    """greet, version 1: "Say {{ q }}"."""
    return create_prompt(project, name="greet", type="text", template="Say {{ q }}", actor=actor).prompt


@pytest.fixture
def endpoint(project: Project) -> ModelEndpoint:
    """A simulated model that answers at once with the question."""
    return create_endpoint(project, name="sim", provider="simulated", settings={"output": "echo"})


@pytest.fixture
def dataset(api: ApiClient) -> str:
    """Ten cases; an echo of the prompt is what every second one expects."""
    return fill(api, "support", 10)


def fill(api: ApiClient, name: str, count: int) -> str:
    """A data set `name` with `count` cases, of which the even ones pass."""
    api.post("/api/v1/datasets", {"name": name}).expect(201)
    cases = [
        {"vars": {"q": f"{name} {i}"}, "expected": f"Say {name} {i}" if i % 2 == 0 else "something else"}
        for i in range(count)
    ]
    api.post(f"/api/v1/datasets/{name}/cases", cases).expect(201)
    return name


def experiment(**changes: Any) -> dict[str, Any]:
    """The body of a run over the fixtures above."""
    body = {
        "prompts": [{"name": "greet"}],
        "models": ["sim"],
        "dataset": "support",
        "scorers": EQUALS,
        "concurrency": 8,
    }
    return body | changes


@pytest.fixture
def started(api: ApiClient, prompt: Prompt, endpoint: ModelEndpoint, dataset: str) -> Iterator[Callable]:
    """Start a run of `experiment(**changes)`; nothing is executed any more when the test ends."""

    def start(**changes: Any) -> dict[str, Any]:
        return api.post("/api/v1/runs", experiment(**changes)).expect(201)

    yield start
    assert executor.wait_idle(60)


@pytest.fixture
def ended(api: ApiClient, started: Callable) -> Callable[..., dict[str, Any]]:
    """Start a run and wait for its end."""
    return lambda **changes: wait_for_end(api, started(**changes)["id"])


def wait_for_end(api: ApiClient, run_id: str, timeout_s: float = 60) -> dict[str, Any]:
    """The run, once it is in a final state and its worker has left."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        run = api.get(f"/api/v1/runs/{run_id}").expect(200)
        if run["state"] in FINAL:
            assert executor.wait_idle(timeout_s)
            return api.get(f"/api/v1/runs/{run_id}").expect(200)
        time.sleep(0.02)
    raise AssertionError(f"the run did not end: {run}")


@pytest.fixture
def heard() -> Iterator[list[RunEvent]]:
    """Every run event sent during the test."""
    events: list[RunEvent] = []

    def listen(event: RunEvent, **_: Any) -> None:
        events.append(event)

    run_event.connect(listen)
    yield events
    run_event.disconnect(listen)
