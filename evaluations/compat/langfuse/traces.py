"""`/api/public/otel/v1/traces`: what SDK 5 tells of an experiment, among all the spans of an application."""

from django.conf import settings
from django.http import HttpResponse

from autoforge.errors import UnsupportedMediaType
from evaluations.compat.langfuse.experiments import store_spans
from evaluations.compat.langfuse.spans import encoded_answer, read_spans, unpacked
from prompts.compat.langfuse.surface import Exchange

_PROTOBUF, _JSON = "application/x-protobuf", "application/json"


def take_traces(exchange: Exchange) -> HttpResponse:
    """OTLP in protobuf or JSON, plain or gzip. Spans that belong to no experiment are taken and dropped."""
    request = exchange.request
    kind = str(request.content_type)
    if kind not in (_PROTOBUF, _JSON):
        raise UnsupportedMediaType(f"Content-Type {kind!r} is not read here: send {_PROTOBUF} or {_JSON}.")
    # Not `body`: that is bounded as other requests are.
    packed = request.read(settings.MAX_TRACES_BYTES)
    content = unpacked(packed, request.headers.get("Content-Encoding", ""), settings.MAX_TRACES_BYTES)
    refusals = store_spans(exchange.project, read_spans(content, kind), actor=exchange.actor)
    answer = encoded_answer(refusals, is_json=kind == _JSON)
    return HttpResponse(answer, content_type=kind)
