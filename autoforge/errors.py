"""Errors that a caller can act on, and how they leave as RFC 9457 problem+json."""

from http import HTTPStatus
from typing import Any, ClassVar

import msgspec
from django.core.exceptions import BadRequest, RequestDataTooBig
from django.http import HttpRequest, HttpResponse
from dmr.exceptions import (
    NotAcceptableError,
    NotAuthenticatedError,
    RequestSerializationError,
    ValidationError,
)


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
    status, code = 401, "not_authenticated"


class Forbidden(AppError):
    status, code = 403, "forbidden"


class NotFound(AppError):
    status, code = 404, "not_found"


class Conflict(AppError):
    status, code = 409, "conflict"


class TooLarge(AppError):
    status, code = 413, "too_large"


class RateLimited(AppError):
    status, code = 429, "rate_limited"


class UpstreamFailed(AppError):
    """A model's provider failed; `code` in the body says how."""

    status, code = 502, "upstream_failed"


class Unavailable(AppError):
    status, code = 503, "unavailable"


class Problem(msgspec.Struct, omit_defaults=True):
    """RFC 9457 body. `code` is stable; `detail` is for people."""

    title: str
    status: int
    detail: str
    code: str
    type: str = "about:blank"


def problem_response(error: AppError) -> HttpResponse:
    """`error` as application/problem+json; `extra` members stand beside the standard ones."""
    body = {
        "type": "about:blank",
        "title": HTTPStatus(error.status).phrase,
        "status": error.status,
        "detail": error.detail,
        "code": error.code,
        **error.extra,
    }
    content = msgspec.json.encode(body)
    return HttpResponse(
        content, status=error.status, content_type="application/problem+json", headers=error.headers
    )


def as_app_error(exc: Exception) -> AppError | None:
    """The refusal that `exc` of the framework stands for, or None when it is a bug."""
    match exc:
        case AppError():
            return exc
        case ValidationError():
            return InvalidInput("; ".join(item["msg"] for item in exc.payload))
        case RequestSerializationError():
            return AppError(f"The request body cannot be read: {exc.args[0]}.")
        case NotAuthenticatedError():
            return NotAuthenticated(_WHO_ARE_YOU, headers={"WWW-Authenticate": 'Bearer realm="autoforge"'})
        case NotAcceptableError():
            return _NotAcceptable("This route answers application/json only: change the Accept header.")
        case RequestDataTooBig():
            return TooLarge("The request body is larger than this server takes.")
        case BadRequest():
            return AppError(str(exc) or "The request is malformed.")
        case _:
            return None


_WHO_ARE_YOU = "Send an API key as 'Authorization: Bearer af_sk_…' or Basic 'af_pk_…:af_sk_…', or sign in."


class _NotAcceptable(AppError):
    status, code = 406, "not_acceptable"


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Django's handler404."""
    return problem_response(NotFound(f"There is nothing at {request.path}."))


def server_error(request: HttpRequest) -> HttpResponse:
    """Django's handler500: the traceback is in the log, the caller learns only that it is our fault."""
    return problem_response(_ServerError("The server failed on this request; the failure is logged."))


class _ServerError(AppError):
    status, code = 500, "server_error"
