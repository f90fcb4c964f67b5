"""Langfuse's texts and our templates: there only `{{ name }}` means something, here more does.

What would mean something here alone is written as `{{ '{%' }}` and the like, and read back as it came: a
text of theirs renders here as their SDK compiles it, but that all lines of a rendered template end in a
newline alone, and leaves as it entered. A template of ours that does more than fill in names leaves as it is
written.
"""

import re
from collections.abc import Callable
from keyword import iskeyword
from typing import Any

_MARK = re.compile(r"\{\{|\{%|\{#")
_SPELLED = re.compile(r"\{\{ '(\{\{|\{%|\{#)' \}\}")
# Words that Jinja does not look up.
_CONSTANTS = frozenset({"true", "false", "none", "True", "False", "None"})


def to_template(text: str) -> str:
    """A text of Langfuse's as a template of ours."""
    parts: list[str] = []
    position = 0
    for start, end in _placeholders(text):
        parts += [_spelled(text[position:start]), text[start:end]]
        position = end
    return "".join(parts) + _spelled(text[position:])


def to_text(template: str) -> str:
    """What `to_template` was given."""
    return _SPELLED.sub(r"\1", template)


def _placeholders(text: str) -> list[tuple[int, int]]:
    """Where the names to fill in are: as the SDK finds them, from each `{{` to the next `}}`."""
    found = []
    position = 0
    while (start := text.find("{{", position)) >= 0 and (end := text.find("}}", start)) >= 0:
        position = end + 2
        if _is_name(text[start + 2 : end].strip()):
            found.append((start, position))
    return found


def _is_name(word: str) -> bool:
    return word.isascii() and word.isidentifier() and not iskeyword(word) and word not in _CONSTANTS


def _spelled(text: str) -> str:
    return _MARK.sub(r"{{ '\g<0>' }}", text)


def to_messages(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A chat of Langfuse's as a template of ours; it names the kind of a message, too."""
    return [_converted(_without_kind(item), to_template) for item in items]


def to_chat(template: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What `to_messages` was given, without the kinds."""
    return [_converted(item, to_text) for item in template]


def _without_kind(item: dict[str, Any]) -> dict[str, Any]:
    if item.get("type") in ("message", "chatmessage"):
        return {name: value for name, value in item.items() if name != "type"}
    return item


def _converted(item: dict[str, Any], convert: Callable[[str], str]) -> dict[str, Any]:
    content = item.get("content")
    return item | {"content": convert(content)} if isinstance(content, str) else item
