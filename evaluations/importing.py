"""Reads cases from CSV and JSON lines as a stream: memory does not grow with the file."""

import csv
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec

from autoforge.errors import InvalidInput, TooLarge
from evaluations.schemas import NewCase
from evaluations.scorers.base import ScorerError, parse_scorers

MAX_LINE_BYTES = 2 * 1024 * 1024
MAX_REPORTED_LINES = 20
MAX_COLUMNS = 1_000
_CHUNK_BYTES = 64 * 1024
_EXPECTED_COLUMNS = ("expected", "__expected")
_METADATA_PREFIX = "__metadata:"
csv.field_size_limit(MAX_LINE_BYTES)


class BadRow(ValueError):
    """One row that cannot become a case; the text says why."""


Row = tuple[int, NewCase]


@dataclass
class BadRows:
    """The rows that were refused: all are counted, the first ones are named."""

    unit: str = "line"
    count: int = 0
    named: list[dict[str, Any]] = field(default_factory=list)

    def add(self, line: int, message: str) -> None:
        self.count += 1
        if len(self.named) < MAX_REPORTED_LINES:
            self.named.append({self.unit: line, "message": message})

    def refuse(self) -> None:
        """Raises InvalidInput when there was any."""
        if not self.count:
            return
        shown = "; ".join(f"{self.unit} {bad[self.unit]}: {bad['message']}" for bad in self.named)
        more = f"; and {self.count - len(self.named)} more" if self.count > len(self.named) else ""
        raise InvalidInput(f"Nothing was imported. {shown}{more}", errors=self.named)


def limited_chunks(read: Callable[[int], bytes], limit_bytes: int) -> Iterator[bytes]:
    """The bytes behind `read` in pieces. Raises TooLarge as soon as they exceed `limit_bytes`."""
    size = 0
    while chunk := read(_CHUNK_BYTES):
        size += len(chunk)
        if size > limit_bytes:
            raise TooLarge(f"An import may have at most {limit_bytes // 2**20} MiB: split the file.")
        yield chunk


def read_jsonl(chunks: Iterable[bytes], bad: BadRows) -> Iterator[Row]:
    """Cases of JSON lines: ours, or OpenAI evals' `{"input", "ideal"}`; bad lines go to `bad`."""
    for number, line in enumerate(_lines(chunks), start=1):
        if not line.strip():
            continue
        try:
            yield number, checked(_json_case(line))
        except BadRow as error:
            bad.add(number, str(error))


def read_csv(chunks: Iterable[bytes], bad: BadRows) -> Iterator[Row]:
    """Cases of CSV with a header: columns are vars, apart from `expected` and `__metadata:<key>`."""
    rows = csv.reader(_text_lines(chunks), strict=True)
    try:
        header = _header(next(rows, []))
        yield from _csv_cases(rows, header, bad)
    except csv.Error as error:
        raise InvalidInput(f"Nothing was imported. line {rows.line_num}: {error}.") from None


def _csv_cases(rows: Any, header: list[str], bad: BadRows) -> Iterator[Row]:
    while True:
        number = rows.line_num + 1
        row = next(rows, None)
        if row is None:
            return
        if not row:
            continue
        try:
            yield number, checked(_csv_case(header, row))
        except BadRow as error:
            bad.add(number, str(error))


def _lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Lines without their end. Raises InvalidInput for one over MAX_LINE_BYTES."""
    rest = b""
    number = 0
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        number += len(lines)
        yield from lines
        if len(rest) > MAX_LINE_BYTES:
            limit = f"{MAX_LINE_BYTES // 2**20} MiB"
            raise InvalidInput(f"Nothing was imported. line {number + 1}: is longer than {limit}.")
    if rest:
        yield rest


def _text_lines(chunks: Iterable[bytes]) -> Iterator[str]:
    lines = _lines(chunks)
    first = next(lines, b"").removeprefix(b"\xef\xbb\xbf")
    for number, line in enumerate(itertools.chain([first], lines), start=1):
        try:
            text = line.decode()
        except UnicodeDecodeError:
            raise InvalidInput(
                f"Nothing was imported. line {number}: is not UTF-8; save the file as UTF-8 and try again."
            ) from None
        # Python's csv would end the file at a NUL without a word.
        if "\0" in text:
            raise InvalidInput(f"Nothing was imported. line {number}: contains a NUL character.")
        yield text + "\n"


def _header(names: list[str]) -> list[str]:
    header = [name.strip() for name in names]
    if not any(header):
        raise InvalidInput("The CSV file has no header: its first line must name the columns.")
    if "" in header:
        raise InvalidInput(f"Column {header.index('') + 1} of the header has no name.")
    if len(header) > MAX_COLUMNS:
        raise InvalidInput(
            f"The header names {len(header):,} columns; the limit is {MAX_COLUMNS:,}. "
            "JSON lines hold cases with more variables."
        )
    if twice := sorted(name for name, count in Counter(header).items() if count > 1):
        raise InvalidInput(f"The header names {', '.join(twice)} more than once.")
    if all(name in header for name in _EXPECTED_COLUMNS):
        raise InvalidInput("The header has both expected and __expected: keep one.")
    for name in header:
        _check_special(name)
    return header


def _check_special(name: str) -> None:
    is_known = name in ("__expected", "__description") or name.startswith(_METADATA_PREFIX)
    if name.startswith("__") and not is_known:
        raise InvalidInput(
            f"The column {name} is not supported; known are __expected, __description and __metadata:<key>."
        )


def _csv_case(header: list[str], row: list[str]) -> NewCase:
    if len(row) != len(header):
        raise BadRow(f"has {len(row)} values, the header has {len(header)} columns.")
    case = NewCase(vars={}, metadata={})
    for name, value in zip(header, row, strict=True):
        if name in _EXPECTED_COLUMNS:
            case.expected = value
        elif name == "__description":
            case.metadata["description"] = value
        elif name.startswith(_METADATA_PREFIX):
            _put_metadata(case.metadata, name.removeprefix(_METADATA_PREFIX), value)
        else:
            case.vars[name] = value
    return case


def _put_metadata(metadata: dict[str, Any], key: str, value: str) -> None:
    """`key[]` holds a comma-separated list, in which `\\,` is a comma (promptfoo's rule)."""
    if not key.endswith("[]"):
        metadata[key] = value
        return
    parts = value.replace("\\,", "\0").split(",")
    metadata[key.removesuffix("[]")] = [part.replace("\0", ",").strip() for part in parts if part.strip()]


def _json_case(line: bytes) -> NewCase:
    try:
        row = msgspec.json.decode(line.removeprefix(b"\xef\xbb\xbf"))
    except UnicodeDecodeError:
        raise BadRow("is not UTF-8; save the file as UTF-8 and try again.") from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadRow(f"is not JSON: {error}.") from None
    if not isinstance(row, dict):
        raise BadRow('must be an object like {"vars": {…}, "expected": "…"}.')
    if "vars" in row:
        return _our_case(row)
    if "input" in row:
        return _evals_case(row)
    raise BadRow('has neither "vars" nor "input".')


def _our_case(row: dict[str, Any]) -> NewCase:
    try:
        return msgspec.convert(row, NewCase)
    except msgspec.ValidationError as error:
        raise BadRow(f"{error}.") from None


def _evals_case(row: dict[str, Any]) -> NewCase:
    """OpenAI evals: messages stay a list, so that a chat prompt's placeholder `input` takes them."""
    value = row.pop("input")
    if not isinstance(value, str | list):
        raise BadRow('"input" must be text or a list of messages.')
    return NewCase(vars={"input": value}, expected=row.pop("ideal", None), metadata=row)


def checked(case: NewCase) -> NewCase:
    """The case itself. Raises BadRow for what no database can hold, and for unusable scorers."""
    try:
        if _has_nul([case.vars, case.expected, case.metadata, case.scorers]):
            raise BadRow("contains a NUL character.")
    except RecursionError:
        raise BadRow("is nested too deeply.") from None
    try:
        parse_scorers(case.scorers)
    except ScorerError as error:
        raise BadRow(str(error)) from None
    return case


def _has_nul(value: Any) -> bool:
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, dict):
        return any("\0" in key or _has_nul(inner) for key, inner in value.items())
    return isinstance(value, list) and any(map(_has_nul, value))
