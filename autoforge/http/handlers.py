"""Django's request handling for sync views: everything in one visit to a thread."""

from typing import IO

from django.core.handlers.asgi import ASGIHandler, ASGIRequest, get_script_prefix
from django.core.signals import request_started
from django.http import StreamingHttpResponse
from django.urls import set_script_prefix

from autoforge.errors import AppError, problem_response
from autoforge.http.answers import Answer, conclude
from autoforge.http.asgi import Scope


class SyncHandler(ASGIHandler):
    """A request from the first middleware to the last, in the calling thread."""

    def __init__(self) -> None:
        self.load_middleware(is_async=False)

    def respond(self, scope: Scope, body: IO[bytes]) -> Answer | StreamingHttpResponse:
        """The answer to a request; what a view raises is in it."""
        set_script_prefix(get_script_prefix(scope))
        request_started.send(sender=type(self), scope=scope)
        request = new_request(scope, body)
        response = self.get_response(request) if request else problem_response(BadQuery())
        return conclude(response, type(self))


class BadQuery(AppError):
    """The query string is in no encoding that Django reads."""

    def __init__(self) -> None:
        super().__init__("The query string is not UTF-8.")


def new_request(scope: Scope, body: IO[bytes]) -> ASGIRequest | None:
    """Django's request, or None when its query string is not UTF-8."""
    try:
        request = ASGIRequest(scope, body)
    except UnicodeDecodeError:
        body.close()
        return None
    if "CONTENT_LENGTH" not in request.META and "HTTP_TRANSFER_ENCODING" in request.META:
        # The length of a chunked body is known by now, and Django's form parser asks for it.
        request.META["CONTENT_LENGTH"] = str(body.seek(0, 2))
        body.seek(0)
    return request
