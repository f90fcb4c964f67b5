"""Refusals in Langfuse's form: `{"message", "error"}`, the class of the error by its status."""

import msgspec
from django.http import HttpResponse

from autoforge.errors import AppError, InvalidInput, error_shapes

PREFIX = "/api/public/"

_NAMES = {
    400: "InvalidRequestError",
    401: "UnauthorizedError",
    403: "ForbiddenError",
    404: "LangfuseNotFoundError",
    405: "MethodNotAllowedError",
    409: "LangfuseConflictError",
    413: "PayloadTooLargeError",
    429: "TooManyRequestsError",
}


def connect() -> None:
    """Let every refusal under PREFIX leave in this form, those before a view sees the request too."""
    error_shapes[PREFIX] = error_response


def error_response(error: AppError) -> HttpResponse:
    """`error` as Langfuse answers it."""
    content = msgspec.json.encode(_body(error))
    return HttpResponse(
        content, status=status_of(error), content_type="application/json", headers=error.headers
    )


def _body(error: AppError) -> dict[str, object]:
    if isinstance(error, InvalidBody):
        return {"message": "Invalid request data", "error": [{"message": error.detail}]}
    status = status_of(error)
    return {"message": error.detail, "error": _NAMES.get(status, "InternalServerError")}


def status_of(error: AppError) -> int:
    """Langfuse has no 422: what is wrong with a request is 400."""
    return 400 if error.status == 422 else error.status


class InvalidBody(InvalidInput):
    """A body or query whose shape is wrong: its issues are a list there."""
