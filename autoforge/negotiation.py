"""Which parser reads a request and which format answers it, with our refusals."""

from django.http import HttpRequest
from dmr.endpoint import Endpoint
from dmr.exceptions import NotAcceptableError, RequestSerializationError
from dmr.negotiation import RequestNegotiator, ResponseNegotiator
from dmr.parsers import Parser
from dmr.renderers import Renderer

from autoforge.errors import UnsupportedMediaType


class _BodyNegotiator(RequestNegotiator):
    """415 for a body in a format that the route does not read; one without Content-Type is JSON."""

    __slots__ = ()

    def __call__(self, request: HttpRequest) -> Parser:
        if not request.content_type:
            return self._default
        try:
            return super().__call__(request)
        except RequestSerializationError as error:
            expected = ", ".join(request.__dmr_endpoint__.metadata.parsers)  # type: ignore[attr-defined]  # set by dmr
            raise UnsupportedMediaType(
                f"Content-Type {request.content_type!r} is not read here: send {expected}.",
                headers={"Accept": expected},
            ) from error


class _AnswerNegotiator(ResponseNegotiator):
    """An Accept header that nothing satisfies is disregarded, as RFC 9110 (12.5.1) allows."""

    __slots__ = ()

    def __call__(self, request: HttpRequest) -> Renderer:
        try:
            return super().__call__(request)
        except NotAcceptableError:
            request.__dmr_renderer__ = self._default  # type: ignore[attr-defined]  # dmr keeps it there
            return self._default


class StrictEndpoint(Endpoint):
    """One method of one route, with our negotiation."""

    __slots__ = ()

    request_negotiator_cls = _BodyNegotiator
    response_negotiator_cls = _AnswerNegotiator
