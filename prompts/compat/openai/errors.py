"""Refusals in OpenAI's form, with what its clients need to decide whether to try again."""

import math
import uuid

import msgspec
from django.http import HttpResponse

from autoforge.errors import (
    AppError,
    InvalidInput,
    NotFound,
    RateLimited,
    UpstreamBusy,
    UpstreamFailed,
    error_shapes,
)
from autoforge.spending import BudgetSpent
from prompts.llm.providers.base import ProviderError

PREFIX = "/v1/"
# OpenAI's clients repeat 408, 409, 429 and 5xx unless this header forbids it.
NO_RETRY = {"x-should-retry": "false"}

_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_CODES = {
    "not_authenticated": "invalid_api_key",
    "forbidden": "insufficient_permissions",
    "rate_limited": "rate_limit_exceeded",
    "invalid": "invalid_value",
}


class ModelNotFound(NotFound):
    code = "model_not_found"


def unknown_model(model: str) -> ModelNotFound:
    """It does not exist, or only in another project: nobody is told which."""
    return ModelNotFound(f"The model {model!r} does not exist in this project.", param="model")


class QuotaExceeded(RateLimited):
    """The money is spent: waiting does not bring it back."""

    code = "insufficient_quota"


class ContentFiltered(AppError):
    """The provider's policy refuses the request."""

    code = "content_filter"


class UpstreamTimeout(UpstreamFailed):
    status, code = 504, "timeout"


_KINDS: dict[str, type[AppError]] = {
    "invalid_request": InvalidInput,
    "content_filter": ContentFiltered,
    "rate_limited": RateLimited,
    "quota_exceeded": QuotaExceeded,
    "overloaded": UpstreamBusy,
    "timeout": UpstreamTimeout,
}
_BUSY = ("rate_limited", "overloaded")


def connect() -> None:
    """Let every refusal under PREFIX leave in this form, those before a view sees the request too."""
    error_shapes[PREFIX] = error_response


def of_provider(error: ProviderError) -> AppError:
    """The refusal that a model's failure is to the client, with x-should-retry where it must not be."""
    headers = {} if error.is_retryable or error.code in _BUSY else dict(NO_RETRY)
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(math.ceil(error.retry_after_s))
        headers["retry-after-ms"] = str(math.ceil(error.retry_after_s * 1000))
    return _KINDS.get(error.code, UpstreamFailed)(error.message, headers=headers, upstream=error.code)


def error_response(error: AppError) -> HttpResponse:
    """`error` as OpenAI answers it; every answer has an x-request-id."""
    if isinstance(error, BudgetSpent):
        error = QuotaExceeded(error.detail, headers=NO_RETRY | error.headers)
    headers = {"x-request-id": f"req_{new_id()}"} | error.headers
    content = msgspec.json.encode(error_body(error))
    return HttpResponse(content, status=status_of(error), content_type="application/json", headers=headers)


def error_body(error: AppError) -> dict[str, object]:
    """`{"error": {message, type, param, code, …}}`."""
    status = status_of(error)
    kind = _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    if isinstance(error, QuotaExceeded):
        kind = error.code
    known = {"message": error.detail, "type": kind, "param": None, "code": _CODES.get(error.code, error.code)}
    return {"error": known | error.extra}


def status_of(error: AppError) -> int:
    """OpenAI has no 422: what is wrong with a request is 400."""
    return 400 if error.status == 422 else error.status


def new_id() -> str:
    """Of a request, and of its answer."""
    return uuid.uuid4().hex
