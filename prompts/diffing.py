"""What changed between two versions of a prompt."""

import difflib
from typing import Any

import msgspec

from prompts.models import PromptVersion


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
    lines = difflib.unified_diff(
        lines_of(old.template),
        lines_of(new.template),
        f"version {old.number}",
        f"version {new.number}",
        lineterm="",
    )
    config = _diff_config(old.config, new.config)
    return VersionDiff(old.prompt.name, old.number, new.number, "\n".join(lines), config)


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
