"""What every route of the surface shares: keys, limits, methods, roles, errors, JSON in and out."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any, TypeVar

import msgspec
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse
from msgspec import Meta

from autoforge.auth import Actor, authenticate
from autoforge.errors import (
    AppError,
    InvalidInput,
    MethodNotAllowed,
    NotFound,
    TooLarge,
    as_app_error,
    validation_sentence,
)
from autoforge.models import Project, Role
from autoforge.parsers import holds_nul
from autoforge.throttling import admit, policies_for
from prompts.compat.langfuse.errors import InvalidBody, error_response

T = TypeVar("T")
M = TypeVar("M", bound=Model)
MAX_PAGE = 100
MAX_PAGE_NUMBER = 10_000_000


@dataclass(slots=True)
class Exchange:
    """A request that was let in, and by whom it comes."""

    request: HttpRequest
    actor: Actor

    @property
    def project(self) -> Project:
        return self.actor.project

    def body(self, kind: type[T], *, limit_bytes: int | None = None) -> T:
        """The JSON of the request. Raises InvalidBody naming the field, AppError for what is no JSON.

        `limit_bytes` for a route that takes more than others; TooLarge above it.
        """
        content = self.request.body if limit_bytes is None else self._long_body(limit_bytes)
        if holds_nul(content):
            raise InvalidInput("The body holds the character U+0000, which cannot be stored: remove it.")
        try:
            return msgspec.json.decode(content, type=kind)
        except msgspec.ValidationError as error:
            raise InvalidBody(validation_sentence(str(error))) from error
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise AppError(f"The request body is not JSON: {error}.") from error

    def _long_body(self, limit_bytes: int) -> bytes:
        content: bytes = self.request.read(limit_bytes + 1)
        if len(content) > limit_bytes:
            raise TooLarge(f"The body is larger than {limit_bytes} bytes.", limit_bytes=limit_bytes)
        return content

    def query(self, kind: type[T]) -> T:
        """The parameters of the address; those we do not know are ignored. Raises InvalidBody."""
        try:
            return msgspec.convert(self.request.GET.dict(), kind, strict=False)
        except msgspec.ValidationError as error:
            raise InvalidBody(validation_sentence(str(error))) from error


Handler = Callable[..., HttpResponse]
View = Callable[..., HttpResponse]


def answers(**handlers: Handler) -> View:
    """A view from a handler for each method; what they raise leaves in Langfuse's form.

    GET needs the role viewer, everything else the role editor.
    """
    return _for_keys(partial(_answer, handlers))


def _for_keys(answer: Handler) -> View:
    """A view for everybody with a key: counted, and every answer says what is left of the key's limit."""

    def view(request: HttpRequest, **kwargs: Any) -> HttpResponse:
        headers: dict[str, str] = {}
        try:
            exchange = _let_in(request, headers)
            response = answer(exchange, **kwargs)
        except Exception as exc:
            error = as_app_error(exc)
            if error is None:
                raise
            response = error_response(error)
        for name, value in headers.items():
            response.headers[name] = value
        return response

    # Who sends a session's cookie is asked for its token by `authenticate`.
    view.csrf_exempt = True  # type: ignore[attr-defined]  # read by Django's middleware
    return view


def _let_in(request: HttpRequest, headers: dict[str, str]) -> Exchange:
    """Authenticate and count the request; `headers` learn what is left. Raises AppError."""
    actor = authenticate(request)
    route = request.resolver_match.url_name if request.resolver_match else None
    headers |= admit(policies_for(actor, route or ""))
    return Exchange(request, actor)


def _answer(handlers: dict[str, Handler], exchange: Exchange, **kwargs: Any) -> HttpResponse:
    request = exchange.request
    if "\0" in request.path or "%00" in request.META.get("QUERY_STRING", ""):
        raise AppError("The address holds a NUL character.")
    method = "GET" if request.method == "HEAD" else str(request.method)
    if (handler := handlers.get(method)) is None:
        allowed = ", ".join(sorted({*handlers, "HEAD"} if "GET" in handlers else handlers))
        raise MethodNotAllowed(f"{method} is not allowed here, only {allowed}.", headers={"Allow": allowed})
    exchange.actor.require(Role.VIEWER if method == "GET" else Role.EDITOR)
    return handler(exchange, **kwargs)


def json_response(answer: object, status: int = 200) -> HttpResponse:
    """`answer` as JSON."""
    return HttpResponse(msgspec.json.encode(answer), status=status, content_type="application/json")


def in_utc(moment: datetime) -> datetime:
    """A time that a client gave, which is in UTC where it does not say. Raises ValueError."""
    try:
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except OverflowError:
        raise ValueError("give times within the years 1 to 9999 of UTC") from None


class PageQuery(msgspec.Struct, kw_only=True, rename="camel"):
    """`?page=&limit=`, as Langfuse counts: pages begin at 1."""

    page: Annotated[int, Meta(ge=1, le=MAX_PAGE_NUMBER)] = 1
    limit: int = 50


def page_of(rows: QuerySet[M], query: PageQuery, show: Callable[[list[M]], list[Any]]) -> HttpResponse:
    """One page of `rows`, which are ordered, with Langfuse's count of all. Raises InvalidInput."""
    if not 1 <= query.limit <= MAX_PAGE:
        raise InvalidInput(f"limit must be between 1 and {MAX_PAGE}, not {query.limit}.")
    total = rows.count()
    start = (query.page - 1) * query.limit
    shown = show(list(rows[start : start + query.limit]))
    meta = {
        "page": query.page,
        "limit": query.limit,
        "totalItems": total,
        "totalPages": math.ceil(total / query.limit),
    }
    return json_response({"data": shown, "meta": meta})


def open_to_all(show: Callable[[], HttpResponse]) -> View:
    """A view of what is told without a key."""

    def view(request: HttpRequest) -> HttpResponse:
        if request.method in ("GET", "HEAD"):
            return show()
        error = MethodNotAllowed(f"{request.method} is not allowed here.", headers={"Allow": "GET, HEAD"})
        return error_response(error)

    view.csrf_exempt = True  # type: ignore[attr-defined]  # it changes nothing
    return view


def _refuse_path(exchange: Exchange, **_: Any) -> HttpResponse:
    asked = f"{exchange.request.method} {exchange.request.path}"
    raise NotFound(f"{asked} is not supported by this server.")


refuse_path = _for_keys(_refuse_path)
"""The rest of the surface."""
