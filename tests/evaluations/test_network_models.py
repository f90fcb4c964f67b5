"""Runs on a vendor's network: odd answers are error cells, secrets stay at their address."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from django.conf import settings

from autoforge.models import Project
from evaluations.claims import join_run
from evaluations.models import Result, Run, RunWorker
from prompts.llm import retries
from prompts.models import ModelEndpoint, Prompt
from prompts.services import change_endpoint, create_endpoint
from tests.conftest import ApiClient
from tests.evaluations.conftest import wait_for_end
from tests.fake_vendor import FakeVendor, Reply, fake_vendor

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("private_endpoints_allowed"),
]


@pytest.fixture
def vendor() -> Iterator[FakeVendor]:
    with fake_vendor() as running:
        yield running


@pytest.fixture
def gpt(project: Project, vendor: FakeVendor) -> ModelEndpoint:
    return create_endpoint(
        project, name="gpt", provider="openai", model="gpt-4o", base_url=vendor.base_url, api_key="sk-old"
    )


def answer(**changes: Any) -> bytes:
    """A whole answer whose choice and usage have `changes`."""
    choice = {"message": {"content": "hi"}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 5, "completion_tokens": 2}
    body = {"choices": [choice], "usage": usage}
    for name, value in changes.items():
        next(part for part in (choice["message"], choice, usage, body) if name in part or part is body)[
            name
        ] = value
    return json.dumps(body).encode()


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"choices": ' + b"[" * 500 + b"]" * 500 + b"}",
        b'{"choices": "\xff"}',
        answer(finish_reason={"why": "stop"}, stop_reason={"why": "stop"}),
        answer(finish_reason=7, stop_reason=7),
        answer(model=["gpt"]),
    ],
    ids=["endless", "deep", "no text", "a reason of fields", "a number for a reason", "a list for a model"],
)
@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_an_odd_answer_is_an_error_of_its_cells(
    body: bytes, provider: str, vendor: FakeVendor, gpt: ModelEndpoint, ended: Any
) -> None:
    change_endpoint(gpt, provider=provider, api_key="sk-new", settings={"stream": False})
    vendor.default = Reply(body=body)
    run = ended(models=["gpt"])
    assert (run["state"], run["errors"]) == ("finished", 10)
    codes = Result.objects.filter(run_id=run["id"]).values_list("error_code", flat=True)
    assert set(codes) == {"bad_response"}


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ({"finish_reason": "st\0op"}, ("st\ufffdop", 5)),
        ({"prompt_tokens": 2**31}, ("stop", None)),
        ({"prompt_tokens": 2**31 - 1}, ("stop", 2**31 - 1)),
        ({"error": None}, ("stop", 5)),
        ({"system_fingerprint": 2**70}, ("stop", 5)),
        ({"tool_calls": [7]}, ("stop", 5)),
    ],
)
def test_what_can_be_kept_of_an_odd_answer_is_kept(
    changes: Any, kept: Any, vendor: FakeVendor, gpt: ModelEndpoint, ended: Any
) -> None:
    change_endpoint(gpt, settings={"stream": False})
    vendor.default = Reply(body=answer(**changes))
    run = ended(models=["gpt"])
    assert (run["state"], run["errors"]) == ("finished", 0)
    result = Result.objects.filter(run_id=run["id"])[0]
    assert (result.finish_reason, result.input_tokens) == kept


@pytest.mark.parametrize("wait", ["1e999", "1e300", "9" * 400, "Fri, 31 Dec 9999 23:59:59 GMT"])
@pytest.mark.parametrize("header", ["Retry-After", "retry-after-ms"])
def test_no_wish_to_wait_is_too_long_to_be_told(
    header: str, wait: str, vendor: FakeVendor, gpt: ModelEndpoint, api: ApiClient, monkeypatch: Any
) -> None:
    monkeypatch.setattr(retries, "BACKOFF_BASE_S", 0.001)
    vendor.default = Reply(status=429, headers={header: wait}, error={"message": "slow down"})
    question = {"model": "gpt", "messages": [{"role": "user", "content": "hi"}]}
    api.post("/api/v1/completions", question).expect(503)
    api.post("/v1/chat/completions", question).expect(429)


@pytest.mark.parametrize("as_judge", [False, True], ids=["column", "judge"])
@pytest.mark.parametrize("is_new", [False, True], ids=["moved", "deleted and made anew"])
def test_a_secret_follows_no_run_to_another_address(
    is_new: bool,
    as_judge: bool,
    project: Project,
    vendor: FakeVendor,
    gpt: ModelEndpoint,
    api: ApiClient,
    started: Any,
    endpoint: ModelEndpoint,
) -> None:
    endpoint.settings |= {"latency_ms": 250}
    endpoint.save()
    judged = [{"type": "llm-rubric", "value": "is polite", "provider": "gpt"}] if as_judge else []
    run = started(models=["sim"] if as_judge else ["sim", "gpt"], scorers=judged, concurrency=1)
    api.post(f"/api/v1/runs/{run['id']}/cancel").expect(200)
    wait_for_end(api, run["id"])
    asked = vendor.count
    moved = {"base_url": "https://api.example.com/v1", "api_key": "sk-real"}
    if is_new:
        gpt.delete()
        create_endpoint(project, name="gpt", provider="openai", model="gpt-4o", **moved)
    else:
        change_endpoint(gpt, **moved)
    api.post(f"/api/v1/runs/{run['id']}/resume").expect(200)
    assert wait_for_end(api, run["id"])["state"] == "finished"
    assert vendor.count == asked
    errors = Result.objects.filter(run_id=run["id"], state="error")
    assert errors.count() >= 9
    assert all("another provider or base_url" in error.error for error in errors)
    if not as_judge:
        assert {error.error_code for error in errors} == {"endpoint_moved"}


def test_a_rotated_secret_is_used_by_a_resumed_run(
    vendor: FakeVendor, gpt: ModelEndpoint, api: ApiClient, started: Any
) -> None:
    vendor.default = Reply(delay_s=0.2)
    run = started(models=["gpt"], concurrency=1)
    api.post(f"/api/v1/runs/{run['id']}/cancel").expect(200)
    wait_for_end(api, run["id"])
    change_endpoint(gpt, api_key="sk-rotated")
    api.post(f"/api/v1/runs/{run['id']}/resume").expect(200)
    assert wait_for_end(api, run["id"])["errors"] == 0
    assert vendor.calls[-1].headers["Authorization"] == "Bearer sk-rotated"


def test_runs_and_completions_ask_the_same_question(
    vendor: FakeVendor, gpt: ModelEndpoint, api: ApiClient, prompt: Prompt, ended: Any
) -> None:
    config = {"model": "gpt", "fallbacks": ["sim"], "temperature": 0}
    api.post("/api/v1/prompts/greet/versions", {"template": "Say it: {{ q }}", "config": config}).expect(201)
    ended(models=["gpt"], prompts=[{"name": "greet", "label": "latest"}])
    sent = vendor.calls[0].body
    assert (sent["model"], sent["temperature"], "fallbacks" in sent) == ("gpt-4o", 0, False)
    call = {"prompt": {"name": "greet", "label": "latest"}, "model": "gpt", "vars": {"q": "support 0"}}
    assert api.post("/api/v1/completions", call).expect(200)["cached"]


def test_joining_may_be_repeated(started: Any, endpoint: ModelEndpoint, api: ApiClient) -> None:
    endpoint.settings |= {"latency_ms": 250}
    endpoint.save()
    run = started(concurrency=1)
    first, second = (join_run(Run.objects.get(pk=run["id"]).pk, "worker of a lost answer") for _ in range(2))
    assert first is not None and first == second
    RunWorker.objects.filter(pk=first.pk).delete()
    api.post(f"/api/v1/runs/{run['id']}/cancel").expect(200)
    wait_for_end(api, run["id"])


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_a_server_that_cannot_stream_is_asked_for_whole_answers(
    provider: str, vendor: FakeVendor, api: ApiClient, owner: ApiClient
) -> None:
    model = {"name": "whole", "provider": provider, "model": "m", "base_url": vendor.base_url, "api_key": "k"}
    made = owner.post("/api/v1/models", model | {"settings": {"stream": False}}).expect(201)
    assert made["settings"] == {"stream": False}
    question = {"model": "whole", "messages": [{"role": "user", "content": "hi"}]}
    assert api.post("/api/v1/completions", question).expect(200)["text"] == "Hello world"
    assert not vendor.calls[-1].body.get("stream")


def test_cells_that_have_begun_are_judged_although_the_run_is_cancelled(
    vendor: FakeVendor, gpt: ModelEndpoint, project: Project, api: Any, started: Any
) -> None:
    """One call at once: the first cell's judge waits for the second cell's call when the run ends."""
    vendor.default = Reply(delay_s=2 * settings.RUN_HEARTBEAT_S)
    verdict = '{"pass": true, "score": 1, "reason": "kind"}'
    create_endpoint(project, name="judge", provider="simulated", settings={"output": verdict})
    rubric = [{"type": "llm-rubric", "value": "is kind", "provider": "judge"}]
    run = started(models=["gpt"], concurrency=1, scorers=rubric)
    vendor.wait_until(lambda state: state.count == 2)
    api.post(f"/api/v1/runs/{run['id']}/cancel").expect(200)
    ended = wait_for_end(api, run["id"], 20)
    assert (ended["state"], ended["done"], ended["passed"]) == ("cancelled", 2, 2)
