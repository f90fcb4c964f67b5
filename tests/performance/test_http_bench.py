"""What a request costs between the ASGI server and a view that does nothing, all middleware on."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from asgiref.testing import ApplicationCommunicator
from django.core.handlers.asgi import ASGIHandler
from django.http import HttpRequest, HttpResponse
from django.test.utils import override_settings
from django.urls import path

from autoforge.http import HttpApplication

pytestmark = pytest.mark.benchmark(group="HTTP request")


def view(request: HttpRequest) -> HttpResponse:
    return HttpResponse(b"ok")


async def async_view(request: HttpRequest) -> HttpResponse:
    return HttpResponse(b"ok")


urlpatterns = [path("sync", view), path("async", async_view)]


def ours() -> HttpApplication:
    return HttpApplication(is_async=lambda path: path == "/async")


@pytest.fixture(params=[ASGIHandler, ours], ids=["Django's handler", "our handler"])
def application(request: pytest.FixtureRequest) -> Iterator[Any]:
    with override_settings(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["bench"]):
        yield request.param()


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


def request_to(target: str) -> dict[str, Any]:
    return {
        "type": "http",
        "method": "GET",
        "path": target,
        "query_string": b"",
        "headers": [(b"host", b"bench")],
    }


@pytest.mark.parametrize("target", ["/sync", "/async"])
def test_request(benchmark, application, loop, target):
    async def exchange() -> int:
        communicator = ApplicationCommunicator(application, request_to(target))
        await communicator.send_input({"type": "http.request"})
        start = await communicator.receive_output(5)
        await communicator.receive_output(5)
        await communicator.wait(5)
        return start["status"]

    answer: Callable[[], int] = lambda: loop.run_until_complete(exchange())  # noqa: E731
    assert benchmark(answer) == 200
    if isinstance(application, HttpApplication):
        loop.run_until_complete(application.close())
