"""Reads OTLP: of a batch of spans those attributes that tell of an experiment."""

import base64
import re
import zlib
from collections.abc import Iterator
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import msgspec

from autoforge.errors import AppError, TooLarge, UnsupportedMediaType
from autoforge.lazy import lazy
from autoforge.parsers import holds_nul
from evaluations.execution import clean
from evaluations.services.outcomes import Call

if TYPE_CHECKING:
    from google.protobuf import json_format, message
    from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
    from opentelemetry.proto.trace.v1 import trace_pb2
else:
    json_format, message = lazy("google.protobuf.json_format"), lazy("google.protobuf.message")
    trace_service_pb2 = lazy("opentelemetry.proto.collector.trace.v1.trace_service_pb2")
    trace_pb2 = lazy("opentelemetry.proto.trace.v1.trace_pb2")

MAX_SPANS = 10_000
PREFIX = "langfuse."
_EXPERIMENT = "langfuse.experiment."
_OBSERVATION = "langfuse.observation."
_CALL_TYPES = ("generation", "embedding")
_GZIP = zlib.MAX_WBITS | 16
_TRACE_ID, _SPAN_ID = re.compile(r"[0-9a-f]{32}"), re.compile(r"[0-9a-f]{16}")


class Span(msgspec.Struct, frozen=True):
    """One span; `attributes` are Langfuse's, as texts and numbers."""

    trace_id: str
    span_id: str
    is_top: bool  # nothing is around it
    start_ns: int
    end_ns: int
    is_error: bool
    status: str
    attributes: dict[str, Any]

    def experiment(self, name: str) -> str:
        """What it says of its experiment, "" for nothing."""
        return str(self.attributes.get(_EXPERIMENT + name, ""))

    @property
    def experiment_metadata(self) -> dict[str, Any] | None:
        """What its experiment was given as such; None for what is no object that can be kept."""
        text = self.experiment("metadata")
        return None if holds_nul(text.encode()) else _object(text)

    def observation(self, name: str) -> str:
        return str(self.attributes.get(_OBSERVATION + name, ""))

    @property
    def is_of_experiment(self) -> bool:
        return bool(self.experiment("id") and self.experiment("item.id"))

    @property
    def root_id(self) -> str:
        """The observation of its experiment's item that is judged."""
        return self.experiment("item.root_observation_id")

    @property
    def duration_ms(self) -> float:
        return max(0, self.end_ns - self.start_ns) / 1e6

    @property
    def call(self) -> Call | None:
        """The call of a model that it is."""
        if self.observation("type") not in _CALL_TYPES:
            return None
        usage, cost = self._numbers("usage_details"), self._numbers("cost_details")
        version = self.attributes.get(_OBSERVATION + "prompt.version")
        return Call(
            model=self.observation("model.name")[:200],
            prompt=self.observation("prompt.name")[:200],
            version=version if _is_whole(version) else None,
            input_tokens=_tokens(usage, "input", "prompt_tokens", "input_tokens"),
            output_tokens=_tokens(usage, "output", "completion_tokens", "output_tokens"),
            cost_usd=_cost(cost),
        )

    def _numbers(self, name: str) -> dict[str, Any]:
        """An attribute that is a JSON object of numbers; what is none counts as absent."""
        return _object(self.observation(name)) or {}


def _object(text: str) -> dict[str, Any] | None:
    """The JSON object that `text` is."""
    try:
        found = msgspec.json.decode(text or "null")
    except (msgspec.DecodeError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _is_whole(number: Any) -> bool:
    return isinstance(number, int) and not isinstance(number, bool)


def _tokens(usage: dict[str, Any], *names: str) -> int | None:
    found = next((usage[name] for name in names if _is_whole(usage.get(name))), None)
    return found if found is None else min(max(found, 0), 2**31 - 1)


def _cost(cost: dict[str, Any]) -> Decimal | None:
    """The total, or the sum of the parts, in US dollars."""
    parts = [cost["total"]] if "total" in cost else list(cost.values())
    try:
        total = sum((Decimal(str(part)) for part in parts), Decimal(0))
    except ArithmeticError:  # no number, or one beyond all bounds
        return None
    is_known = bool(parts) and total.is_finite() and 0 <= total < 1_000_000
    return total.quantize(Decimal("1e-9")) if is_known else None


def unpacked(content: bytes, encoding: str, limit: int) -> bytes:
    """The body as it was before compression. Raises TooLarge, AppError."""
    if encoding in ("", "identity"):
        return content
    if encoding != "gzip":
        raise UnsupportedMediaType(f"Content-Encoding {encoding!r} is not read here: send gzip or none.")
    machine = zlib.decompressobj(_GZIP)
    try:
        plain = machine.decompress(content, limit)
    except zlib.error as error:
        raise AppError("The body is not gzip.") from error
    if machine.unconsumed_tail:
        raise TooLarge(f"The unpacked body is larger than {limit} bytes.", limit_bytes=limit)
    return plain


def read_spans(content: bytes, content_type: str) -> list[Span]:
    """The spans that have an attribute of Langfuse's, and ids of OTLP's size. Raises AppError, TooLarge."""
    batch = trace_service_pb2.ExportTraceServiceRequest()
    is_json = content_type == "application/json"
    try:
        if is_json:
            json_format.Parse(content, batch, ignore_unknown_fields=True)
        else:
            batch.ParseFromString(content)
    except (message.DecodeError, json_format.ParseError, UnicodeDecodeError) as error:
        raise AppError("The body is no OTLP trace.") from error
    found = [
        _span(span, is_json)
        for resource in batch.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]
    if len(found) > MAX_SPANS:
        raise TooLarge(f"A batch has at most {MAX_SPANS} spans, not {len(found)}.")
    return [span for span in found if span.attributes and _has_proper_ids(span)]


def _has_proper_ids(span: Span) -> bool:
    return bool(_TRACE_ID.fullmatch(span.trace_id) and _SPAN_ID.fullmatch(span.span_id))


def _span(span: "trace_pb2.Span", is_json: bool) -> Span:
    attributes = dict(_attributes(span))
    is_error = span.status.code == trace_pb2.Status.STATUS_CODE_ERROR
    level = attributes.get(_OBSERVATION + "level")
    return Span(
        trace_id=_hex(span.trace_id, is_json),
        span_id=_hex(span.span_id, is_json),
        is_top=not span.parent_span_id,
        start_ns=span.start_time_unix_nano,
        end_ns=span.end_time_unix_nano,
        is_error=is_error or level == "ERROR",
        status=str(attributes.get(_OBSERVATION + "status_message", "")) or clean(span.status.message),
        attributes=attributes,
    )


def _attributes(span: "trace_pb2.Span") -> Iterator[tuple[str, Any]]:
    for attribute in span.attributes:
        if attribute.key.startswith(PREFIX):
            kind = attribute.value.WhichOneof("value")
            value = getattr(attribute.value, kind) if kind else None
            if isinstance(value, str):
                yield attribute.key, clean(value)
            elif isinstance(value, int | float):
                yield attribute.key, value


def _hex(value: bytes, is_json: bool) -> str:
    """An id; OTLP's JSON writes it in hex, which protobuf's reader takes for base64."""
    return base64.b64encode(value).decode().lower() if is_json else value.hex()


def encoded_answer(refusals: list[str], *, is_json: bool) -> bytes:
    """OTLP's answer: everything was taken, but for what `refusals` say."""
    answer = trace_service_pb2.ExportTraceServiceResponse()
    if refusals:
        answer.partial_success.error_message = " ".join(refusals)
    return json_format.MessageToJson(answer).encode() if is_json else answer.SerializeToString()
