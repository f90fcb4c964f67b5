"""Results of a run as files: streamed, so that memory does not grow with the run."""

import csv
import io
from collections.abc import Iterable, Iterator
from typing import Any
from xml.sax.saxutils import escape, quoteattr

import msgspec
from django.db.models import Count, Q, Sum
from django.http import StreamingHttpResponse

from autoforge.errors import InvalidInput
from evaluations.models import Result, ResultState, Run
from evaluations.schemas import ResultOut, columns_of, versioned

_CHUNK_ROWS = 500
_CSV_FIELDS = (
    "id",
    "case",
    "vars",
    "expected",
    "prompt",
    "version",
    "model",
    "repeat",
    "state",
    "output",
    "score",
    "scores",
    "latency_ms",
    "ttft_ms",
    "input_tokens",
    "output_tokens",
    "cost_usd",
    "cached",
    "error",
)
# A spreadsheet takes these for the beginning of a formula (OWASP, CSV Injection).
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
# What XML 1.0 forbids, as a table for str.translate.
_NOT_XML = dict.fromkeys([*range(9), 11, 12, *range(14, 32), 0xFFFE, 0xFFFF], "\ufffd")


def export(run: Run, format: str) -> StreamingHttpResponse:
    """The file as a response. Raises InvalidInput for an unknown format."""
    if format not in _FORMATS:
        raise InvalidInput(f"format must be one of {', '.join(_FORMATS)}, not {format!r}.")
    lines, content_type, ending = _FORMATS[format]
    disposition = f'attachment; filename="run-{run.pk}.{ending}"'
    return StreamingHttpResponse(
        _buffered(lines(run)), content_type=content_type, headers={"Content-Disposition": disposition}
    )


def _buffered(lines: Iterable[str], size: int = 32 * 1024) -> Iterator[bytes]:
    """Lines joined into chunks worth sending."""
    buffer = bytearray()
    for line in lines:
        buffer += line.encode()
        if len(buffer) >= size:
            yield bytes(buffer)
            buffer.clear()
    if buffer:
        yield bytes(buffer)


def _rows(run: Run, **where: Any) -> Iterator[tuple[Result, ResultOut]]:
    columns = columns_of(run)
    results = Result.objects.filter(run=run, **where).select_related("case").order_by("id")
    for result in results.iterator(chunk_size=_CHUNK_ROWS):
        yield result, ResultOut.of(result, columns[result.column])


def _jsonl(run: Run) -> Iterator[str]:
    for result, shown in _rows(run):
        extra = {"vars": result.case.vars, "expected": result.case.expected}
        yield msgspec.json.encode(msgspec.to_builtins(shown) | extra).decode() + "\n"


def _csv(run: Run) -> Iterator[str]:
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(_CSV_FIELDS)
    for result, shown in _rows(run):
        writer.writerow([_guarded(value) for value in _csv_values(result, shown)])
        yield _taken(buffer)
    yield _taken(buffer)


def _taken(buffer: io.StringIO) -> str:
    text = buffer.getvalue()
    buffer.seek(0)
    buffer.truncate()
    return text


def _csv_values(result: Result, shown: ResultOut) -> list[Any]:
    values = msgspec.structs.asdict(shown) | {
        "vars": _json(result.case.vars),
        "expected": result.case.expected,
        "scores": _json(shown.scores),
        "input_tokens": shown.tokens.input,
        "output_tokens": shown.tokens.output,
    }
    return [values[name] for name in _CSV_FIELDS]


def _guarded(value: Any) -> Any:
    """Text that a spreadsheet would execute gets a leading apostrophe; numbers stay numbers."""
    if isinstance(value, dict | list):
        value = _json(value)
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA_STARTS) else value


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _junit(run: Run) -> Iterator[str]:
    """JUnit XML: one suite a column, one test a cell."""
    sums = {row["column"]: row for row in _junit_sums(run)}
    attributes = _attributes(run.name or str(run.pk), run.done, run.failed, run.errors, run.call_ms)
    yield f'<?xml version="1.0" encoding="UTF-8"?>\n<testsuites {attributes}>\n'
    for index, column in enumerate(columns_of(run)):
        row = sums.get(index, {"cells": 0, "n_failed": 0, "n_errors": 0, "ms": 0})
        name = f"{versioned(column)} [{column.model}]"
        counts = (row["cells"], row["n_failed"], row["n_errors"], row["ms"] or 0)
        yield f"  <testsuite {_attributes(name, *counts)}>\n"
        for _, shown in _rows(run, column=index):
            yield _junit_case(name, shown)
        yield "  </testsuite>\n"
    yield "</testsuites>\n"


def _junit_sums(run: Run) -> Any:
    by_column = Result.objects.filter(run=run).order_by().values("column")
    return by_column.annotate(
        cells=Count("pk"),
        n_failed=Count("pk", filter=Q(state=ResultState.FAILED)),
        n_errors=Count("pk", filter=Q(state=ResultState.ERROR)),
        ms=Sum("latency_ms", filter=Q(cached=False)),
    )


def _attributes(name: str, tests: int, failures: int, errors: int, ms: float) -> str:
    counts = f'tests="{tests}" failures="{failures}" errors="{errors}"'
    return f'name={_attribute(name)} {counts} time="{ms / 1000:.3f}"'


def _junit_case(suite: str, shown: ResultOut) -> str:
    name = f"case {shown.case}, repeat {shown.repeat}"
    seconds = (shown.latency_ms or 0) / 1000
    head = f'<testcase classname={_attribute(suite)} name={_attribute(name)} time="{seconds:.3f}"'
    if shown.state == ResultState.PASSED:
        return f"    {head}/>\n"
    if shown.state == ResultState.ERROR:
        problem = (
            f"<error type={_attribute(shown.error_code or '')} message={_attribute(shown.error or '')}/>"
        )
    else:
        reasons = [f"{row['scorer']}: {row['reason']}" for row in shown.scores if not row["passed"]]
        text = "\n".join([*reasons, f"output: {shown.output}"])
        problem = f'<failure type="score" message="score {shown.score:g}">{_text(text)}</failure>'
    return f"    {head}>{problem}</testcase>\n"


def _text(value: str) -> str:
    return escape(value.translate(_NOT_XML))


def _attribute(value: str) -> str:
    return quoteattr(value.translate(_NOT_XML))


_FORMATS = {
    "jsonl": (_jsonl, "application/x-ndjson; charset=utf-8", "jsonl"),
    "csv": (_csv, "text/csv; charset=utf-8", "csv"),
    "junit": (_junit, "application/xml; charset=utf-8", "xml"),
}
