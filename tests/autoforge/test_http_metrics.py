"""What is counted of requests: by the name of the route, with the wait for a thread, refusals too."""

import asyncio
import time
from typing import Any

import pytest
from asgiref.testing import ApplicationCommunicator
from django.http import HttpRequest, HttpResponse
from django.test.utils import override_settings
from django.urls import path
from prometheus_client import REGISTRY

from autoforge.http import HttpApplication

NAP_S = 0.05


def nap(request: HttpRequest, name: str) -> HttpResponse:
    time.sleep(NAP_S)
    return HttpResponse(b"ok")


entered = asyncio.Event()


async def wait(request: HttpRequest) -> HttpResponse:
    entered.set()
    await asyncio.Event().wait()
    return HttpResponse(b"never")


urlpatterns = [path("nap/<str:name>", nap, name="test-nap"), path("wait", wait, name="test-wait")]


@pytest.fixture
def application():
    with override_settings(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["test"], HTTP_THREADS=1):
        yield HttpApplication(is_async=lambda path: path == "/wait")


def sent(application: HttpApplication, target: str, *, method: str = "GET", length: int = 0) -> Any:
    headers = [(b"host", b"test"), (b"content-length", str(length).encode())]
    scope = {"type": "http", "method": method, "path": target, "query_string": b"", "headers": headers}
    return ApplicationCommunicator(application, scope)


async def status_of(exchange: ApplicationCommunicator) -> int:
    await exchange.send_input({"type": "http.request"})
    return (await exchange.receive_output(10))["status"]


def count(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"autoforge_http_{name}", labels) or 0.0


async def test_a_request_is_counted_by_its_route_with_its_wait_for_a_thread(application):
    labels = {"view": "test-nap", "method": "GET", "handler": "sync"}
    seconds, requests = count("request_seconds_sum", **labels), count("request_seconds_count", **labels)
    both = [status_of(sent(application, f"/nap/{name}")) for name in ("one", "other")]
    assert await asyncio.gather(*both) == [200, 200]
    assert count("request_seconds_count", **labels) - requests == 2
    # The second one waited until the first was over.
    assert count("request_seconds_sum", **labels) - seconds >= 3 * NAP_S
    assert count("responses_total", view="test-nap", method="GET", status="200") >= 2


@pytest.mark.parametrize(
    ("request_of", "labels"),
    [
        ({"target": "/missing/by-its-name"}, {"method": "GET", "status": "404"}),
        ({"target": "/nap/x", "method": "BREW"}, {"method": "other", "status": "403"}),
        ({"target": "/nap/x", "method": "POST", "length": 10**9}, {"method": "POST", "status": "413"}),
    ],
    ids=["no such route", "an invented method", "refused before any view"],
)
async def test_nobody_can_invent_series(application, request_of, labels):
    view = "test-nap" if labels["method"] == "other" else "none"
    before = count("responses_total", view=view, **labels)
    assert await status_of(sent(application, **request_of)) == int(labels["status"])
    assert count("responses_total", view=view, **labels) == before + 1


async def test_a_client_that_does_not_wait_is_in_flight_and_then_gone(application):
    before = count("clients_left_total")
    entered.clear()
    exchange = sent(application, "/wait")
    await exchange.send_input({"type": "http.request"})
    await asyncio.wait_for(entered.wait(), 10)
    application.sample()
    assert count("requests_in_flight") == 1
    await exchange.send_input({"type": "http.disconnect"})
    await exchange.wait(10)
    application.sample()
    assert count("requests_in_flight") == 0
    assert count("clients_left_total") == before + 1
