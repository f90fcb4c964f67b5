"""Servers that end, and what a handler promises before it starts: lifespan, routes, middleware."""

import re
from collections.abc import Iterator
from contextlib import closing

import pytest
from asgiref.sync import iscoroutinefunction
from asgiref.testing import ApplicationCommunicator
from django.conf import settings
from django.core.checks import run_checks
from django.test.utils import override_settings
from django.urls import URLResolver, get_resolver

from autoforge.asgi import is_async
from autoforge.http import Lifespan
from tests.autoforge.http_server import KINDS, eventually, read, serve


@pytest.mark.parametrize("kind", KINDS)
def test_requests_in_flight_are_finished_when_the_server_is_stopped(kind, folder):
    with serve(kind, folder, DATABASE_URL="") as server:
        with closing(server.start("/hold")) as plain, closing(server.start("/v1/hold")) as awaited:
            server.heard("holding")
            eventually(lambda: server.ask("/echo").status == 200)
            server.terminate()
            server.say("go")
            assert [read(plain).body, read(awaited).body] == [b"held", b"held"]
        assert server.process.wait(20) in (0, -15)


def test_an_endless_answer_does_not_keep_daphne_alive(folder):
    with serve("daphne", folder, DATABASE_URL="", AUTOFORGE_HTTP_SHUTDOWN="0.2") as server:
        reader = server.start("/endless")
        reader.getresponse().read(5)
        server.terminate()
        server.heard("stopped")
        assert server.process.wait(20) in (0, -15)
        reader.close()


def test_an_endless_answer_is_cut_when_its_time_is_over(folder):
    with serve("uvicorn", folder, DATABASE_URL="", AUTOFORGE_HTTP_SHUTDOWN="1") as server:
        reader = server.start("/endless")
        reader.getresponse().read(5)
        server.terminate()
        assert server.process.wait(9) in (0, -15)
        reader.close()


async def test_a_failed_start_is_told_to_the_server():
    async def fail() -> None:
        raise OSError("the port of the model is taken")

    exchange = ApplicationCommunicator(Lifespan(startup=[fail]), {"type": "lifespan"})
    await exchange.send_input({"type": "lifespan.startup"})
    answer = await exchange.receive_output()
    assert answer == {"type": "lifespan.startup.failed", "message": "the port of the model is taken"}


async def test_every_step_of_a_shutdown_runs():
    steps = []

    async def step() -> None:
        steps.append(len(steps))
        raise OSError("no matter")

    exchange = ApplicationCommunicator(Lifespan(shutdown=[step, step]), {"type": "lifespan"})
    for event in ("startup", "shutdown"):
        await exchange.send_input({"type": f"lifespan.{event}"})
        assert await exchange.receive_output() == {"type": f"lifespan.{event}.complete"}
    assert steps == [0, 1]


def routes_of(resolver: URLResolver, prefix: str = "/") -> Iterator[tuple[str, object]]:
    """(path, view) of every route, with "x" for each parameter."""
    for pattern in resolver.url_patterns:
        path = prefix + re.sub("<[^>]+>", "x", str(pattern.pattern))
        if isinstance(pattern, URLResolver):
            yield from routes_of(pattern, path)
        else:
            yield path, pattern.callback


def test_exactly_the_async_views_are_awaited_on_the_loop():
    routes = dict(routes_of(get_resolver()))
    assert "/api/v1/completions" in routes
    misplaced = [path for path, view in routes.items() if is_async(path) != iscoroutinefunction(view)]
    assert misplaced == []


@pytest.mark.parametrize(
    ("path", "is_refused"),
    [
        ("django.middleware.common.CommonMiddleware", False),
        ("servestatic.middleware.ServeStaticMiddleware", True),
        ("django.views.decorators.csrf.csrf_exempt", True),
    ],
)
def test_middleware_that_one_handler_would_skip_is_refused(path, is_refused):
    with override_settings(MIDDLEWARE=[*settings.MIDDLEWARE, path]):
        messages = [message.msg for message in run_checks()]
    assert any(f"MIDDLEWARE has {path}" in message for message in messages) is is_refused
