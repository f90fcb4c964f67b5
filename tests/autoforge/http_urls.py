"""Views that show how the HTTP application treats a request, for the tests of it."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from asgiref.sync import async_to_sync
from django.conf import settings
from django.contrib.auth.models import User
from django.db import connection
from django.http import FileResponse, HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.template import engines
from django.template.response import SimpleTemplateResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

from autoforge.db.metrics import pool_status
from autoforge.errors import not_found, server_error

handler404, handler500 = not_found, server_error
FOREVER_S = 30.0


def sentinel(request: HttpRequest, name: str) -> Path:
    """The file through which a view and its test talk."""
    return Path(settings.SENTINEL_DIR) / f"{request.GET['token']}-{name}"


def note(request: HttpRequest, name: str) -> None:
    """Tell the test that `name` happened."""
    sentinel(request, name).touch()


def wait_for(request: HttpRequest, name: str) -> None:
    """Wait until the test says `name`."""
    deadline = time.monotonic() + FOREVER_S
    while not sentinel(request, name).exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


async def wait_on_the_loop(request: HttpRequest, name: str) -> None:
    """The same for an async view."""
    while not sentinel(request, name).exists():  # noqa: ASYNC110  the test is another process
        await asyncio.sleep(0.01)


def echo(request: HttpRequest, **_: Any) -> JsonResponse:
    body = request.body
    return JsonResponse(
        {
            "method": request.method,
            "path": request.path,
            "query": request.GET.dict(),
            "headers": dict(request.headers),
            "size": len(body),
            "sum": sum(body) if len(body) < 3_000_000 else None,
            "thread": threading.current_thread().name,
        }
    )


def size(request: HttpRequest, **_: Any) -> JsonResponse:
    """The length of a body that is read in pieces, as an import reads it."""
    total = 0
    while piece := request.read(65536):
        total += len(piece)
    return JsonResponse({"size": total})


def form(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"fields": request.POST.dict(), "files": [f.size for f in request.FILES.values()]})


def cookies(request: HttpRequest) -> HttpResponse:
    response = HttpResponse("two")
    response.set_cookie("first", "1", httponly=True)
    response.set_cookie("second", "2", max_age=60)
    return response


def fail(request: HttpRequest) -> HttpResponse:
    raise ZeroDivisionError("a bug")


def hold(request: HttpRequest) -> HttpResponse:
    """Runs until the test says go."""
    note(request, "holding")
    wait_for(request, "go")
    return HttpResponse("held")


def stream(request: HttpRequest) -> StreamingHttpResponse:
    """One piece at once, the other when the test has seen it."""

    def pieces() -> Iterator[str]:
        yield "first"
        wait_for(request, "go")
        yield "second"

    return StreamingHttpResponse(pieces())


def endless(request: HttpRequest) -> StreamingHttpResponse:
    """Pieces until someone stops it; says so when it ends, and when nobody takes them any more."""
    is_fast = "fast" in request.GET

    def pieces() -> Iterator[bytes]:
        taken_at = [time.monotonic()]
        threading.Thread(target=watch, args=(taken_at,), daemon=True).start()
        try:
            while True:
                yield b"x" * (65536 if is_fast else 1000)
                taken_at[0] = time.monotonic()
                time.sleep(0 if is_fast else 0.005)
        finally:
            note(request, "stopped")

    def watch(taken_at: list[float]) -> None:
        while time.monotonic() - taken_at[0] < 0.5:
            time.sleep(0.05)
        note(request, "paused")

    return StreamingHttpResponse(pieces())


def broken(request: HttpRequest) -> StreamingHttpResponse:
    def pieces() -> Iterator[bytes]:
        yield b"begin"
        raise ZeroDivisionError("in the middle")

    return StreamingHttpResponse(pieces())


def rows(request: HttpRequest) -> StreamingHttpResponse:
    """Rows as the database delivers them, in the order of threads and connections that it takes."""

    def pieces() -> Iterator[str]:
        for user in User.objects.order_by("username").iterator(chunk_size=2):
            yield f"{user.username} {threading.current_thread().name}\n"

    User.objects.count()
    return StreamingHttpResponse(pieces())


def populate(request: HttpRequest) -> HttpResponse:
    for number in range(7):
        User.objects.get_or_create(username=f"user{number}")
    return HttpResponse("seven")


def download(request: HttpRequest) -> FileResponse:
    return FileResponse((Path(settings.SENTINEL_DIR) / "large").open("rb"))


def bridge(request: HttpRequest) -> JsonResponse:
    """Where `async_to_sync` runs: on the server's loop, again and again the same."""

    async def loop_and_thread() -> tuple[int, str]:
        return id(asyncio.get_running_loop()), threading.current_thread().name

    return JsonResponse(
        {"first": async_to_sync(loop_and_thread)(), "second": async_to_sync(loop_and_thread)()}
    )


def database(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"users": User.objects.count()})


def pool(request: HttpRequest) -> JsonResponse:
    return JsonResponse({alias: status.in_use for alias, status in pool_status().items()})


def slow_database(request: HttpRequest) -> HttpResponse:
    """Keeps a connection until the test says go."""
    connection.ensure_connection()
    return hold(request)


def interrupted(request: HttpRequest) -> JsonResponse:
    """Asks on a connection that it had before the test said go."""
    slow_database(request)
    return database(request)


async def async_echo(request: HttpRequest, **_: Any) -> JsonResponse:
    return JsonResponse(
        {
            "path": request.path,
            "size": len(request.body),
            "thread": threading.current_thread().name,
            "user": (await request.auser()).is_anonymous,
            "users": await User.objects.acount(),
        }
    )


async def async_fail(request: HttpRequest) -> HttpResponse:
    raise ZeroDivisionError("a bug")


async def async_hold(request: HttpRequest) -> HttpResponse:
    """Waits until its client leaves or the test says go."""
    note(request, "holding")
    try:
        await wait_on_the_loop(request, "go")
    except asyncio.CancelledError:
        note(request, "cancelled")
        raise
    return HttpResponse("held")


async def async_stream(request: HttpRequest) -> StreamingHttpResponse:
    async def pieces() -> AsyncIterator[str]:
        try:
            yield "first"
            await wait_on_the_loop(request, "go")
            yield "second"
        finally:
            note(request, "stopped")

    return StreamingHttpResponse(pieces(), content_type="text/event-stream")


async def session(request: HttpRequest) -> JsonResponse:
    """A session that is written after the view, in the second visit to a thread."""
    count = await request.session.aget("count", 0) + 1
    await request.session.aset("count", count)
    return JsonResponse({"count": count})


def rendered(request: HttpRequest) -> SimpleTemplateResponse:
    """A sync view behind an async route, whose template is rendered after it returned."""
    return SimpleTemplateResponse(engines["django"].from_string("in {{ thread }}"), {"thread": Here()})


class Here:
    """Where it is rendered."""

    def __str__(self) -> str:
        return threading.current_thread().name


ROUTES = {
    "v1/rendered": rendered,
    "api/v1/datasets/<path:name>/import": size,
    "api/v1/completions": async_echo,
    "api/v1/completions/fail": async_fail,
    "v1/hold": async_hold,
    "v1/stream": async_stream,
    "v1/session": session,
    "echo": echo,
    "echo/<path:rest>": echo,
}
VIEWS = [form, cookies, fail, hold, stream, endless, broken, rows, populate, download, bridge, pool]
VIEWS += [database, slow_database, interrupted]
urlpatterns = [
    path(route, csrf_exempt(view))
    for route, view in (ROUTES | {view.__name__: view for view in VIEWS}).items()
]
