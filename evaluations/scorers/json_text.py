"""Reads JSON as strictly as JSON.parse, and finds JSON inside prose in bounded time."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NoReturn

import yaml

from evaluations.scorers.types import UnjudgeableError

# What reading in vain may cost over all places where JSON could begin, in characters passed over.
MAX_WASTE = 200_000_000
# The YAML reader is slow, some 100,000 characters a second.
MAX_YAML_CHARS = 10_000

# An opening bracket with a member behind it, as JSON wants one.
_OPENING = re.compile(r'\{(?=[ \t\n\r]*["}])|\[(?=[ \t\n\r]*[\[{"\]\-0-9tfn])')


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


# As in RFC 8259: NaN and Infinity, which Python would read, are refused.
_DECODER = json.JSONDecoder(parse_constant=_refuse)


def load_json(text: str) -> Any:
    """The value of a JSON text. Raises ValueError; UnjudgeableError when it is nested too deeply."""
    if text.startswith("\ufeff"):
        raise ValueError("a byte order mark is no JSON")
    try:
        return _DECODER.decode(text)
    except RecursionError:
        raise _too_deep() from None


def find_json(text: str) -> Iterator[Any]:
    """Each JSON object or array in `text` that is not inside another, first to last.

    Raises UnjudgeableError when so many brackets open in vain that looking on would take long.
    """
    position = waste = 0
    while opening := _OPENING.search(text, position):
        start = opening.start()
        try:
            value, position = _DECODER.raw_decode(text, start)
        except RecursionError:
            raise _too_deep() from None
        except ValueError as error:
            position = start + 1
            waste += _cost_of(error, start)
            if waste > MAX_WASTE:
                raise UnjudgeableError("too many unfinished brackets to search for JSON") from None
        else:
            yield value


def _cost_of(error: ValueError, start: int) -> int:
    """Decoding a character costs ten times what counting it costs, and an error counts lines from the top."""
    stopped = int(getattr(error, "pos", start))
    return stopped + 10 * (stopped - start)


def _too_deep() -> UnjudgeableError:
    return UnjudgeableError("the JSON is nested too deeply")


def load_yaml(text: str) -> Any:
    """The value of a JSON or YAML text. Raises ValueError."""
    try:
        return load_json(text)
    except ValueError:
        if len(text) > MAX_YAML_CHARS:
            raise ValueError(f"YAML may have {MAX_YAML_CHARS} characters at most") from None
    try:
        return yaml.load(text, _PlainLoader)  # noqa: S506 - a subclass of SafeLoader
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(" ".join(str(error).split())) from None


class _PlainLoader(yaml.SafeLoader):
    """Refuses aliases: a few lines of them stand for gigabytes."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not allowed")
        return super().compose_node(parent, index)
