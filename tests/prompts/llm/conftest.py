"""Fixtures of the model tests: a fake vendor, an endpoint at it, and both kinds of shared store."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import msgspec
import pytest
from django.conf import settings
from django.test.utils import override_settings

from prompts.llm import ledger, observers, retries
from prompts.llm.cache import response_cache
from prompts.llm.providers.base import Completion, Endpoint, ProviderError, Request
from tests.fake_vendor import FakeVendor, fake_vendor

Ask = Callable[..., Request]


async def eventually(is_so: Callable[[], Awaitable[bool]]) -> None:
    """Wait until `await is_so()`."""
    for _ in range(600):
        if await is_so():
            return
        await asyncio.sleep(0.05)
    raise AssertionError("it never became true")


@pytest.fixture
def vendor() -> Iterator[FakeVendor]:
    with fake_vendor() as running:
        yield running


@pytest.fixture(autouse=True)
def fresh_stores(private_endpoints_allowed: None) -> Iterator[None]:
    """No test finds what another left in this process. Projects are unique, so Redis needs no cleaning."""
    response_cache.cache_clear()
    ledger.ledger.cache_clear()
    yield
    response_cache.cache_clear()
    ledger.ledger.cache_clear()


@pytest.fixture(params=["memory", "redis"])
def store(request: pytest.FixtureRequest) -> Iterator[str]:
    """Runs the test with the stores in this process, and with those in Redis where there is one."""
    if request.param == "redis" and not settings.REDIS_URL:
        pytest.skip("REDIS_URL is not set")
    url = settings.REDIS_URL if request.param == "redis" else ""
    with override_settings(REDIS_URL=url):
        yield request.param


@pytest.fixture
def in_memory() -> Iterator[None]:
    """The stores in this process, whatever the environment says."""
    with override_settings(REDIS_URL=""):
        yield


@pytest.fixture
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Backoff without the waiting: its bounds are settings of a module."""
    monkeypatch.setattr(retries, "BACKOFF_BASE_S", 0.001)


@pytest.fixture
def endpoint(vendor: FakeVendor) -> Endpoint:
    """A model of the fake vendor, in a project of its own."""
    return Endpoint(
        project=uuid.uuid4().hex,
        name="fake",
        provider="openai",
        model="gpt-4o-mini",
        base_url=vendor.base_url,
        api_key="sk-very-secret",
    )


@pytest.fixture
def ask(endpoint: Endpoint) -> Ask:
    """`ask("question", repeat=1)`: a request to `endpoint`; `endpoint_*` changes the endpoint."""

    def request_of(question: str = "hi", **changes: Any) -> Request:
        of_endpoint = {
            name.removeprefix("endpoint_"): changes.pop(name)
            for name in list(changes)
            if name.startswith("endpoint_")
        }
        messages = changes.pop("messages", ({"role": "user", "content": question},))
        return Request(msgspec.structs.replace(endpoint, **of_endpoint), messages, **changes)

    return request_of


@pytest.fixture
def observed() -> Iterator[list[tuple[Request, Completion | ProviderError, float]]]:
    """What observers of calls were told."""
    told: list[tuple[Request, Completion | ProviderError, float]] = []

    def observer(request: Request, outcome: Completion | ProviderError, seconds: float) -> None:
        told.append((request, outcome, seconds))

    observers.on_call.append(observer)
    yield told
    observers.on_call.remove(observer)
