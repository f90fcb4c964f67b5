"""Completions through the front door: whole, streamed, cached, refused, abandoned."""

import asyncio
import json
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from decimal import Decimal
from typing import Any

import pytest
from asgiref.testing import ApplicationCommunicator
from django.core.handlers.asgi import ASGIHandler

from autoforge.db.threads import in_db_thread
from autoforge.models import IdempotentRequest, KeySpending, Project, Role
from autoforge.services import create_api_key
from prompts import services
from tests.conftest import ApiClient
from tests.fake_vendor import FakeVendor, Reply, fake_vendor

URL = "/api/v1/completions"
HELLO = {"messages": [{"role": "user", "content": "Hello you"}], "model": "echo"}

# The view looks keys, prompts and models up in other threads: they see only what is committed.
pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("prompt", "endpoint", "private_endpoints_allowed"),
]


@pytest.fixture
def vendor() -> Any:
    with fake_vendor() as running:
        yield running


@pytest.fixture
def gpt(api: ApiClient, vendor: FakeVendor) -> dict[str, Any]:
    """A body for the fake vendor's model, whose answers cost 1 and 2 dollars per million tokens."""
    prices = {"input_per_mtok": 1, "output_per_mtok": 2}
    endpoint = {"name": "gpt", "provider": "openai", "model": "m", "base_url": vendor.base_url}
    api.post("/api/v1/models", endpoint | {"prices": prices, "params": {"temperature": 0}}).expect(201)
    return {"messages": [{"role": "user", "content": "Hello"}], "model": "gpt"}


def test_a_prompt_is_rendered_and_answered(api: ApiClient) -> None:
    body = {"prompt": "support/greeting", "model": "echo", "vars": {"name": "Ada"}}
    answer = api.post(URL, body)
    completion = answer.expect(200)
    assert answer.headers["X-Cache"] == "MISS"
    assert completion.pop("id").startswith("cmpl_")
    assert completion.pop("latency_ms") >= 0
    assert completion.pop("ttft_ms") >= 0
    assert completion == {
        "model": "echo",
        "prompt": {"name": "support/greeting", "version": 1},
        "text": "Hello Ada",
        "finish_reason": "stop",
        "tokens": {"input": 2, "output": 2},
        "cost_usd": completion["cost_usd"],
        "saved_usd": completion["saved_usd"],
        "cached": False,
    }


def test_a_prompt_is_chosen_by_label_or_version(api: ApiClient) -> None:
    body = {"template": "Bye {{ name }}", "labels": ["leaving"]}
    api.post("/api/v1/prompts/support/greeting/versions", body).expect(201)
    for choice, text in (
        ({"name": "support/greeting", "label": "leaving"}, "Bye Ada"),
        ({"name": "support/greeting", "version": 1}, "Hello Ada"),
        ({"name": "support/greeting"}, "Bye Ada"),
    ):
        answer = api.post(URL, {"prompt": choice, "model": "echo", "vars": {"name": "Ada"}}).expect(200)
        assert answer["text"] == text


def test_the_prompts_config_may_name_the_model_and_parameters(
    api: ApiClient, vendor: FakeVendor, gpt: dict[str, Any]
) -> None:
    config = {"model": "gpt", "temperature": 0.5, "max_tokens": 9}
    body = {"name": "own", "type": "text", "template": "Hi", "config": config}
    api.post("/api/v1/prompts", body).expect(201)
    assert api.post(URL, {"prompt": "own", "params": {"max_tokens": 7}}).expect(200)["model"] == "gpt"
    sent = vendor.calls[0].body
    assert (sent["model"], sent["temperature"], sent["max_tokens"]) == ("m", 0.5, 7)


def test_messages_are_sent_as_they_are(api: ApiClient, vendor: FakeVendor, gpt: dict[str, Any]) -> None:
    messages = [
        {"role": "system", "content": "{{ not rendered }}"},
        {"role": "user", "content": [{"type": "text", "text": "Look"}]},
    ]
    answer = api.post(URL, gpt | {"messages": messages}).expect(200)
    assert vendor.calls[0].body["messages"] == messages
    assert (answer["text"], answer["prompt"]) == ("Hello world", None)
    assert answer["tokens"] == {"input": 5, "output": 2}
    assert answer["cost_usd"] == pytest.approx((5 * 1 + 2 * 2) / 1e6)


def test_an_answer_is_paid_once(api: ApiClient, vendor: FakeVendor, gpt: dict[str, Any]) -> None:
    first, second = api.post(URL, gpt), api.post(URL, gpt)
    assert [answer.headers["X-Cache"] for answer in (first, second)] == ["MISS", "HIT"]
    assert (first.expect(200)["cached"], second.expect(200)["cached"]) == (False, True)
    assert second.body["saved_usd"] == pytest.approx(first.body["cost_usd"])
    assert (second.body["cost_usd"], second.body["text"]) == (0, first.body["text"])
    assert vendor.count == 1
    assert api.with_headers(cache_control="no-cache").post(URL, gpt).headers["X-Cache"] == "MISS"
    assert api.with_headers(cache_control="no-store").post(URL, gpt).headers["X-Cache"] == "MISS"
    assert vendor.count == 3


def test_a_project_of_the_same_name_has_none_of_the_answers(
    api: ApiClient, project: Project, vendor: FakeVendor, gpt: dict[str, Any]
) -> None:
    api.post(URL, gpt).expect(200)
    endpoint, name = project.model_endpoints.get(name="gpt"), project.name
    project.delete()
    endpoint.pk, endpoint.project = None, Project.objects.create(name=name)
    endpoint.save()
    heir = ApiClient(create_api_key(endpoint.project, name="heir", role=Role.EDITOR).secret)
    assert heir.post(URL, gpt).headers["X-Cache"] == "MISS" and vendor.count == 2


@pytest.mark.parametrize(
    ("change", "status", "sentence"),
    [
        ({"prompt": "support/greeting"}, 422, "either 'prompt' or 'messages'"),
        ({"messages": None}, 422, "either 'prompt' or 'messages'"),
        ({"messages": []}, 422, "messages: "),
        ({"messages": [{"role": "robot", "content": ""}]}, 422, "messages[0].role: Invalid enum value"),
        ({"messages": [{"role": "user", "text": ""}]}, 422, "There is no field 'text'"),
        ({"vars": {"a": 1}}, 422, "'messages' are sent as they are"),
        ({"model": None}, 422, "'model' is missing"),
        ({"model": "gpt-9"}, 404, "There is no model 'gpt-9'"),
        ({"params": {"stream": True}}, 422, "params must not contain stream"),
        ({"messages": None, "prompt": "none"}, 404, "There is no prompt 'none'"),
        ({"messages": None, "prompt": {"name": "support/greeting", "version": 9}}, 404, "no version 9"),
        ({"messages": None, "prompt": {"label": "x"}}, 422, "The field 'name' is missing"),
        ({"messages": None, "prompt": "support/greeting"}, 422, "name"),
        ({"temperature": 1}, 422, "There is no field 'temperature'"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_bad_call_is_refused_with_a_sentence(
    api: ApiClient, change: dict[str, Any], status: int, sentence: str, stream: bool
) -> None:
    body = {key: value for key, value in (HELLO | change).items() if value is not None}
    problem = api.post(URL, body | {"stream": stream}).expect(status)
    assert sentence in problem["detail"]


def test_a_missing_variable_is_named(api: ApiClient) -> None:
    problem = api.post(URL, {"prompt": "support/greeting", "model": "echo"}).expect(422)
    assert problem["missing"] == ["name"]


@pytest.mark.parametrize(
    ("reply", "status", "code"),
    [
        (Reply(status=401), 502, "authentication"),
        (Reply(status=400), 502, "invalid_request"),
        (
            Reply(status=429, error={"code": "insufficient_quota", "message": "no money"}),
            502,
            "quota_exceeded",
        ),
        (Reply(status=500), 502, "unavailable"),
    ],
)
def test_a_providers_failure_is_a_bad_gateway(
    api: ApiClient,
    vendor: FakeVendor,
    gpt: dict[str, Any],
    settings: Any,
    reply: Reply,
    status: int,
    code: str,
) -> None:
    settings.MODEL_MAX_ATTEMPTS = 1
    vendor.default = reply
    problem = api.post(URL, gpt).expect(status)
    assert problem["code"] == code
    assert problem["detail"]


def test_a_providers_rate_limit_says_when_to_come_back(
    api: ApiClient, vendor: FakeVendor, gpt: dict[str, Any], settings: Any
) -> None:
    settings.MODEL_MAX_ATTEMPTS = 1
    vendor.default = Reply(status=429, headers={"Retry-After": "7"})
    answer = api.post(URL, gpt)
    assert answer.expect(503)["code"] == "rate_limited"
    assert 6 <= int(answer.headers["Retry-After"]) <= 7


def test_a_request_sent_twice_is_carried_out_once(
    api: ApiClient, vendor: FakeVendor, gpt: dict[str, Any]
) -> None:
    once = api.with_headers(idempotency_key="k1", cache_control="no-store")
    first, second = once.post(URL, gpt), once.post(URL, gpt)
    assert second.expect(200) == first.expect(200)
    assert second.headers["Idempotent-Replayed"] == "true"
    assert vendor.count == 1
    other = once.post(URL, gpt | {"params": {"seed": 1}}).expect(409)
    assert "used with another request" in other["detail"]
    assert "at most 200" in api.with_headers(idempotency_key="k" * 201).post(URL, gpt).expect(422)["detail"]


def test_a_failed_request_gives_its_key_free(api: ApiClient, vendor: FakeVendor, gpt: dict[str, Any]) -> None:
    once = api.with_headers(idempotency_key="k1")
    vendor.script(Reply(status=401))
    once.post(URL, gpt).expect(502)
    assert not IdempotentRequest.objects.exists()
    once.post(URL, gpt).expect(200)


def test_only_editors_of_the_project_may_call(
    viewer: ApiClient, stranger: ApiClient, nobody: ApiClient
) -> None:
    viewer.post(URL, HELLO).expect(403)
    nobody.post(URL, HELLO).expect(401)
    assert "There is no model 'echo'" in stranger.post(URL, HELLO).expect(404)["detail"]
    assert "HEAD" not in stranger.get(URL).expect(405)["detail"]


class Asgi:
    """One request to Django's own ASGI handler, as a server makes it: parts arrive as they are sent."""

    def __init__(self, client: ApiClient, body: Any, **headers: str) -> None:
        self._body = json.dumps(body).encode()
        sent = client._headers | headers | {"content-type": "application/json", "host": "localhost"}
        pairs = [(name.lower().encode(), value.encode()) for name, value in sent.items()]
        scope = {"type": "http", "http_version": "1.1", "method": "POST", "path": URL, "query_string": b""}
        self._app = ApplicationCommunicator(ASGIHandler(), scope | {"headers": pairs})

    async def start(self) -> dict[str, str]:
        """The response's headers, once they are there."""
        await self._app.send_input({"type": "http.request", "body": self._body})
        begun = await self._app.receive_output(10)
        self.status = begun["status"]
        return {name.decode().lower(): value.decode() for name, value in begun["headers"]}

    async def parts(self) -> AsyncIterator[bytes]:
        is_more = True
        while is_more:
            part = await self._app.receive_output(10)
            is_more = part.get("more_body", False)
            yield part.get("body", b"")

    async def leave(self) -> None:
        await self._app.send_input({"type": "http.disconnect"})
        with suppress(asyncio.CancelledError):
            await self._app.wait(10)


def events_of(raw: bytes) -> list[tuple[str, Any]]:
    """(event, data) of a whole stream."""
    blocks = [block.split("\n") for block in raw.decode().split("\n\n") if block]
    return [
        (event.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for event, data in blocks
    ]


async def streamed(client: ApiClient, body: dict[str, Any]) -> list[tuple[str, Any]]:
    request = Asgi(client, body | {"stream": True})
    headers = await request.start()
    assert request.status == 200
    assert headers["content-type"] == "text/event-stream"
    assert headers["x-accel-buffering"] == "no"
    return events_of(b"".join([part async for part in request.parts()]))


async def test_a_stream_brings_tokens_then_the_whole(api: ApiClient, gpt: dict[str, Any]) -> None:
    events = await streamed(api, gpt)
    assert events[:-1] == [("token", {"text": "Hello"}), ("token", {"text": " world"})]
    name, completed = events[-1]
    assert name == "completed"
    assert (completed["text"], completed["finish_reason"]) == ("Hello world", "stop")
    assert completed["tokens"] == {"input": 5, "output": 2}
    assert completed["cached"] is False


async def test_a_cached_answer_is_streamed_too(
    api: ApiClient, vendor: FakeVendor, gpt: dict[str, Any]
) -> None:
    first, second = await streamed(api, gpt), await streamed(api, gpt)
    assert "".join(data["text"] for name, data in second if name == "token") == "Hello world"
    assert second[-1][1]["cached"] is True
    assert second[-1][1]["saved_usd"] == first[-1][1]["cost_usd"]
    assert vendor.count == 1


async def test_a_stream_that_breaks_says_so(
    api: ApiClient, vendor: FakeVendor, gpt: dict[str, Any], settings: Any
) -> None:
    settings.MODEL_MAX_ATTEMPTS = 1
    vendor.default = Reply(error_after=1)
    events = await streamed(api, gpt)
    assert [name for name, _ in events] == ["token", "failed"]
    problem = events[-1][1]
    assert problem["status"] in (502, 503)
    assert problem["code"] and problem["detail"]


async def test_the_first_token_does_not_wait_for_the_last(api: ApiClient, project: Project) -> None:
    # The second token is due in 100 s.
    settings = {"output": "one two", "tokens_per_s": 0.01}
    await in_db_thread(services.create_endpoint)(
        project, name="slow", provider="simulated", settings=settings
    )
    request = Asgi(api, HELLO | {"model": "slow", "stream": True})
    await request.start()
    assert events_of(await anext(request.parts())) == [("token", {"text": "one"})]
    await request.leave()


async def test_a_caller_that_leaves_a_stream_cancels_the_call(
    api: ApiClient, vendor: FakeVendor, gpt: dict[str, Any]
) -> None:
    vendor.default = Reply(text="one two three four", chunk_delay_s=5)
    request = Asgi(api, gpt | {"stream": True})
    await request.start()
    await asyncio.to_thread(vendor.wait_until, lambda v: v.in_flight == 1)
    await request.leave()
    await asyncio.to_thread(vendor.wait_until, lambda v: v.aborted == 1 and v.in_flight == 0)


async def test_a_caller_that_leaves_cancels_an_unstreamed_call(
    api: ApiClient, vendor: FakeVendor, gpt: dict[str, Any]
) -> None:
    vendor.default = Reply(delay_s=30)
    request = Asgi(api, gpt, **{"idempotency-key": "k1"})
    await request._app.send_input({"type": "http.request", "body": request._body})
    await asyncio.to_thread(vendor.wait_until, lambda v: v.in_flight == 1)
    await request.leave()
    await asyncio.to_thread(vendor.wait_until, lambda v: v.aborted == 1 and v.in_flight == 0)
    assert not await in_db_thread(IdempotentRequest.objects.exists)()


def test_the_budget_of_a_key_is_a_hard_limit(project: Project, vendor: FakeVendor, gpt: Any) -> None:
    """Each call can cost 0.00022 dollars: of many at once, no more are made than the budget could pay."""
    budget = Decimal("0.00048")
    poor = create_api_key(project, name="poor", role=Role.EDITOR, budget_usd=budget)
    vendor.default = Reply(delay_s=0.5)

    def ask(number: int) -> int:
        question = {"messages": [{"role": "user", "content": f"Call {number}"}]}
        answer = ApiClient(poor.secret).post(URL, gpt | question | {"params": {"max_tokens": 100}})
        assert answer.response.status_code == 200 or answer.body["code"] == "budget_spent", answer.body
        return answer.response.status_code

    with ThreadPoolExecutor(6) as pool:
        statuses = sorted(pool.map(ask, range(6)))
    assert statuses == [200, 200, 402, 402, 402, 402]
    assert vendor.count == 2
    # What the two did not cost is free again.
    assert KeySpending.objects.get(key=poor.key).spent_usd == Decimal("0.000018")
    assert ask(7) == 200


def test_under_a_budget_the_reserved_maximum_is_sent(project: Project, vendor: FakeVendor, gpt: Any) -> None:
    rich = create_api_key(project, name="rich", role=Role.EDITOR, budget_usd=Decimal(1))
    for params in ({}, {"max_tokens": 7}, {"max_completion_tokens": 9, "max_tokens": 100_000}):
        ApiClient(rich.secret).post(URL, gpt | {"params": params}).expect(200)
    sent = [{name: call.body[name] for name in call.body if name.startswith("max_")} for call in vendor.calls]
    assert sent == [{"max_tokens": 4096}, {"max_tokens": 7}, {"max_completion_tokens": 9}]


def test_an_answer_without_a_count_costs_the_most(project: Project, vendor: FakeVendor, gpt: Any) -> None:
    rich = create_api_key(project, name="rich", role=Role.EDITOR, budget_usd=Decimal(1))
    vendor.default = Reply(usage=None)
    ApiClient(rich.secret).post(URL, gpt | {"params": {"max_tokens": 100}}).expect(200)
    assert KeySpending.objects.get(key=rich.key).spent_usd >= Decimal("0.0002")


async def test_a_budget_needs_a_price(project: Project, vendor: FakeVendor, gpt: Any) -> None:
    await project.model_endpoints.filter(name="gpt").aupdate(input_usd_per_mtok=None)
    rich = await in_db_thread(create_api_key)(project, name="rich", role=Role.EDITOR, budget_usd=Decimal(1))
    [(event, problem)] = await streamed(ApiClient(rich.secret), gpt)
    assert (event, problem["code"]) == ("failed", "invalid")
    assert "No price of the model 'gpt' is known" in problem["detail"]
    assert vendor.count == 0


async def test_a_stream_beyond_the_budget_fails(project: Project, vendor: FakeVendor, gpt: Any) -> None:
    broke = await in_db_thread(create_api_key)(project, name="broke", role=Role.EDITOR, budget_usd=Decimal(0))
    [(event, problem)] = await streamed(ApiClient(broke.secret), gpt)
    assert (event, problem["code"]) == ("failed", "budget_spent")
    assert vendor.count == 0
