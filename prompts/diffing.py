"""What changed between two versions of a prompt."""

import difflib
from collections.abc import Iterator
from typing import Any

import msgspec

from prompts.models import PromptVersion

# A comparison line by line takes up to the square of the lines (0.1 s of 1,000) while nothing else runs.
MAX_COMPARED_LINES = 1_000
_CONTEXT_LINES = 3


class Change(msgspec.Struct, rename={"old": "from", "new": "to"}):
    """A value of config before and after."""

    old: Any
    new: Any


class ConfigDiff(msgspec.Struct):
    """Top-level keys of config."""

    added: dict[str, Any]
    removed: dict[str, Any]
    changed: dict[str, Change]


class VersionDiff(msgspec.Struct, rename={"old": "from", "new": "to"}):
    """`template` is a unified diff of the text, empty when it is the same."""

    name: str
    old: int
    new: int
    template: str
    config: ConfigDiff


def diff_versions(old: PromptVersion, new: PromptVersion) -> VersionDiff:
    """From `old` to `new`, two versions of one prompt."""
    names = f"version {old.number}", f"version {new.number}"
    template = "\n".join(_unified(lines_of(old.template), lines_of(new.template), names))
    config = _diff_config(old.config, new.config)
    return VersionDiff(old.prompt.name, old.number, new.number, template, config)


def _unified(old: list[str], new: list[str], names: tuple[str, str]) -> Iterator[str]:
    """A unified diff; what differs of long texts is one block, from the first such line to the last."""
    if max(len(old), len(new)) <= MAX_COMPARED_LINES:
        return difflib.unified_diff(old, new, *names, lineterm="")
    return _one_block(old, new, names)


def _one_block(old: list[str], new: list[str], names: tuple[str, str]) -> Iterator[str]:
    if old == new:
        return
    start = _same_lines(old, new)
    end = _same_lines(old[start:][::-1], new[start:][::-1])
    before = old[max(0, start - _CONTEXT_LINES) : start]
    after = old[len(old) - end :][:_CONTEXT_LINES]
    removed, added = old[start : len(old) - end], new[start : len(new) - end]
    first, around = start - len(before) + 1, len(before) + len(after)
    yield from (f"--- {names[0]}", f"+++ {names[1]}")
    yield f"@@ -{first},{len(removed) + around} +{first},{len(added) + around} @@"
    for mark, lines in ((" ", before), ("-", removed), ("+", added), (" ", after)):
        yield from (mark + line for line in lines)


def _same_lines(old: list[str], new: list[str]) -> int:
    """How many lines both begin with."""
    pairs = enumerate(zip(old, new, strict=False))
    return next((index for index, (one, other) in pairs if one != other), min(len(old), len(new)))


def lines_of(template: str | list[dict[str, Any]]) -> list[str]:
    """A text's lines; a chat's messages each under a line that says whose they are."""
    if isinstance(template, str):
        return template.splitlines()
    lines: list[str] = []
    for item in template:
        is_placeholder = item.get("type") == "placeholder"
        lines.append(f"[placeholder {item['name']}]" if is_placeholder else f"[{item['role']}]")
        lines.extend(_text(item.get("content", "")).splitlines())
    return lines


def _text(content: str | list[dict[str, Any]]) -> str:
    """Text as it is, parts as indented JSON."""
    if isinstance(content, str):
        return content
    return msgspec.json.format(msgspec.json.encode(content)).decode()


def _diff_config(old: dict[str, Any], new: dict[str, Any]) -> ConfigDiff:
    return ConfigDiff(
        added={key: new[key] for key in new.keys() - old.keys()},
        removed={key: old[key] for key in old.keys() - new.keys()},
        changed={key: Change(old[key], new[key]) for key in old.keys() & new.keys() if old[key] != new[key]},
    )
