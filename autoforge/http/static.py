"""Static files, straight from the loop: no thread, no Django request."""

from functools import partial
from typing import Any

from django.http import HttpRequest, HttpResponse
from servestatic.asgi import FileServerASGI
from servestatic.middleware import ServeStaticMiddleware

from autoforge.errors import NotFound
from autoforge.http.answers import refused, send_answer
from autoforge.http.asgi import Message, Receive, Scope, Send


class StaticFiles:
    """The files of every app under STATIC_URL, found once at the start."""

    def __init__(self) -> None:
        # The middleware knows how to collect files from Django's settings; it is never called.
        self._files: dict[str, Any] = ServeStaticMiddleware(_unused).files

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        file = self._files.get(scope["path"])
        if file is None:
            refusal = NotFound(f"There is no file {scope['path']}.")
            await send_answer(refused(refusal, scope["path"]), send)
        else:
            await FileServerASGI(file)(scope, receive, partial(_send_as_declared, send))


async def _send_as_declared(send: Send, message: Message) -> None:
    """Tell browsers not to guess another type, as SecurityMiddleware does for pages."""
    if message["type"] == "http.response.start":
        message["headers"] = [*message["headers"], (b"x-content-type-options", b"nosniff")]
    await send(message)


async def _unused(_request: HttpRequest) -> HttpResponse:
    raise AssertionError("Only the list of files is used.")
