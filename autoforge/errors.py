"""Errors that a caller can act on, and how they leave as RFC 9457 problem+json."""

import logging
import re
import sys
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, ClassVar

import msgspec
from django.core.exceptions import BadRequest, RequestDataTooBig
from django.db import Error as DatabaseError
from django.http import Http404, HttpRequest, HttpResponse
from django.views.decorators.csrf import csrf_exempt
from dmr.exceptions import NotAuthenticatedError, RequestSerializationError, ValidationError

from autoforge.db.errors import DatabaseUnavailable, is_passing

logger = logging.getLogger(__name__)

CHALLENGE = 'Bearer realm="autoforge"'


class AppError(Exception):
    """A refusal with a status, a machine-readable code and a sentence that names what to change."""

    status: ClassVar[int] = 400
    code: ClassVar[str] = "bad_request"

    def __init__(self, detail: str, *, headers: dict[str, str] | None = None, **extra: Any) -> None:
        super().__init__(detail)
        self.detail = detail
        self.headers = headers or {}
        self.extra = extra


class InvalidInput(AppError):
    status, code = 422, "invalid"


class NotAuthenticated(AppError):
    """Carries the challenge that RFC 9110 (11.6.1) asks of every 401."""

    status, code = 401, "not_authenticated"

    def __init__(self, detail: str, **kwargs: Any) -> None:
        super().__init__(detail, headers={"WWW-Authenticate": CHALLENGE}, **kwargs)


class Forbidden(AppError):
    status, code = 403, "forbidden"


class NotFound(AppError):
    status, code = 404, "not_found"


class MethodNotAllowed(AppError):
    status, code = 405, "method_not_allowed"


class Conflict(AppError):
    status, code = 409, "conflict"


class TooLarge(AppError):
    status, code = 413, "too_large"


class UnsupportedMediaType(AppError):
    status, code = 415, "unsupported_media_type"


class RateLimited(AppError):
    status, code = 429, "rate_limited"


class UpstreamFailed(AppError):
    """A model's provider failed; `code` in the body says how."""

    status, code = 502, "upstream_failed"


class UpstreamBusy(UpstreamFailed):
    """The provider's own rate limit: 503, because 429 would mean ours."""

    status, code = 503, "rate_limited"


class Unavailable(AppError):
    status, code = 503, "unavailable"


class Problem(msgspec.Struct, omit_defaults=True):
    """RFC 9457 body. `code` is stable; `detail` is for people."""

    title: str
    status: int
    detail: str
    code: str
    type: str = "about:blank"


def problem_of(error: AppError) -> dict[str, Any]:
    """`error` as an RFC 9457 body; its `extra` members stand beside the standard ones."""
    return {
        "type": "about:blank",
        "title": HTTPStatus(error.status).phrase,
        "status": error.status,
        "detail": error.detail,
        "code": error.code,
        **error.extra,
    }


def problem_response(error: AppError) -> HttpResponse:
    """`error` as application/problem+json."""
    content = msgspec.json.encode(problem_of(error))
    return HttpResponse(
        content, status=error.status, content_type="application/problem+json", headers=error.headers
    )


error_shapes: dict[str, Callable[[AppError], HttpResponse]] = {}
"""How refusals leave under a prefix of addresses whose clients expect another form than problem+json."""


def refusal_response(error: AppError, path: str) -> HttpResponse:
    """`error` in the form that clients of `path` expect."""
    shapes = (shape for prefix, shape in error_shapes.items() if path.startswith(prefix))
    return next(shapes, problem_response)(error)


def as_app_error(exc: Exception) -> AppError | None:
    """The refusal that `exc` of the framework stands for, or None when it is a bug."""
    match exc:
        case AppError():
            return exc
        case ValidationError():
            return InvalidInput(" ".join(validation_sentence(item["msg"]) for item in exc.payload))
        case RequestSerializationError():
            return AppError(f"The request body cannot be read: {exc.args[0]}.")
        case BadRequest():
            return AppError(str(exc) or "The request is malformed.")
        case DatabaseUnavailable():
            return Unavailable(_BUSY, headers={"Retry-After": str(exc.retry_after_s)})
        case DatabaseError() if is_passing(exc):
            logger.warning("The database went away during a request: %s", exc)
            return Unavailable(_LOST, headers={"Retry-After": "1"})
    return next((kind(detail) for cause, kind, detail in _REFUSALS if isinstance(exc, cause)), None)


_REFUSALS: tuple[tuple[type[Exception], type[AppError], str], ...] = (
    (
        NotAuthenticatedError,
        NotAuthenticated,
        "Send an API key as 'Authorization: Bearer af_sk_…' or Basic 'af_pk_…:af_sk_…', or sign in.",
    ),
    (RequestDataTooBig, TooLarge, "The request body is larger than this server takes."),
    (Http404, NotFound, "There is nothing at this address."),
    # Our own code does not recurse over data: only reading and storing JSON does.
    (RecursionError, AppError, "The JSON of this request is nested too deeply."),
)
_BUSY = "The database takes no more requests at the moment: try again shortly."
_LOST = "The database went away during this request: look whether it was carried out, and send it again."
_PLACE = re.compile(r" - at `(?:key in )?\$(?:\.parsed_\w+)?\.?(?P<path>.*)`$")
_PLAIN_WORDS = (
    (re.compile(r"Object contains unknown field `(.*)`"), r"There is no field '\1'"),
    (re.compile(r"Object missing required field `(.*)`"), r"The field '\1' is missing"),
    (re.compile(r"Expected `(.*)`, got `(.*)`"), r"expected \1, got \2"),
)


def validation_sentence(message: str) -> str:
    """msgspec's `message` as a sentence that names the field: "limit: expected int, got str."."""
    found = _PLACE.search(message)
    path = found["path"] if found else ""
    text = message[: found.start()] if found else message
    for pattern, words in _PLAIN_WORDS:
        text = pattern.sub(words, text)
    text = text.replace("`", "")
    return f"{path}: {text}." if path else f"{text[0].upper()}{text[1:]}."


def not_found(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    """Django's handler404."""
    return refusal_response(NotFound(f"There is nothing at {request.path}."), request.path)


@csrf_exempt
def unknown_url(request: HttpRequest) -> HttpResponse:
    """The last route of the REST API: with DEBUG on, Django would answer HTML."""
    return not_found(request)


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Django's handler400: what middleware refused before a view saw it."""
    error = as_app_error(exception) or AppError("The request is malformed.")
    return refusal_response(error, request.path)


def server_error(request: HttpRequest) -> HttpResponse:
    """Django's handler500: tells a refusal that no view caught; of a bug only that it is our fault."""
    error = sys.exc_info()[1]
    refusal = as_app_error(error) if isinstance(error, Exception) else None
    failure = _ServerError("The server failed on this request; the failure is logged.")
    return refusal_response(refusal or failure, request.path)


class _ServerError(AppError):
    status, code = 500, "server_error"
