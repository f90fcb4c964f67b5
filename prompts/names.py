"""What prompts, labels, tags and endpoints may be called."""

import re
from collections.abc import Iterable

from autoforge.errors import InvalidInput

PRODUCTION = "production"
LATEST = "latest"
# Words that stand behind a prompt's name in URLs.
RESERVED_SEGMENTS = frozenset({"versions", "diff", "render", "labels"})
MAX_PROMPT_NAME_CHARS = 200
MAX_LABELS = MAX_TAGS = 50

_SEGMENT = re.compile(r"[\w .-]+")
_WORD = re.compile(r"[\w.:-]{1,64}")
_ENDPOINT = re.compile(r"[\w.:-]{1,100}")


def check_prompt_name(name: str) -> str:
    """`name`, which may hold folders: support/greeting. Raises InvalidInput."""
    if not 1 <= len(name) <= MAX_PROMPT_NAME_CHARS:
        raise InvalidInput(f"A prompt's name has 1 to {MAX_PROMPT_NAME_CHARS} characters, not {len(name)}.")
    for segment in name.split("/"):
        _check_segment(name, segment)
    return name


def _check_segment(name: str, segment: str) -> None:
    if not segment:
        raise InvalidInput(f"The name {name!r} must not begin or end with '/' or contain '//'.")
    if not _SEGMENT.fullmatch(segment):
        raise InvalidInput(
            f"The name {name!r} may hold letters, digits, spaces and . _ - with / between folders."
        )
    if segment != segment.strip() or set(segment) == {"."}:
        raise InvalidInput(
            f"In the name {name!r}, {segment!r} must not begin or end with a space or be only dots."
        )
    if segment in RESERVED_SEGMENTS:
        raise InvalidInput(f"In the name {name!r}, {segment!r} is reserved for the API's own addresses.")


def check_label(label: str) -> str:
    """`label`, as it may be set and taken away. Raises InvalidInput."""
    if label == LATEST:
        raise InvalidInput("'latest' always names the newest version: it cannot be set or taken away.")
    if not _WORD.fullmatch(label):
        raise InvalidInput(f"The label {label!r} must have 1 to 64 letters, digits or . _ : -")
    return label


def check_tags(tags: Iterable[str]) -> list[str]:
    """`tags` in order, each once. Raises InvalidInput."""
    unique = list(dict.fromkeys(tags))
    if len(unique) > MAX_TAGS:
        raise InvalidInput(f"A prompt has at most {MAX_TAGS} tags, not {len(unique)}.")
    for tag in unique:
        if not (1 <= len(tag) <= 64 and tag == tag.strip() and tag.isprintable()):
            raise InvalidInput(f"The tag {tag!r} must have 1 to 64 printable characters.")
    return unique


def check_endpoint_name(name: str) -> str:
    """`name` of a model endpoint. Raises InvalidInput."""
    if not _ENDPOINT.fullmatch(name):
        raise InvalidInput(f"The model's name {name!r} must have 1 to 100 letters, digits or . _ : -")
    return name
