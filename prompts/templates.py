"""What a version may hold: the shape of its template, its syntax, and the hash of it all."""

import hashlib
from typing import Any

import msgspec

from autoforge.errors import InvalidInput
from prompts.models import PromptType
from prompts.rendering import RenderError, variables

ROLES = ("system", "developer", "user", "assistant", "tool")
MAX_MESSAGES = 500


def check_template(type: str, template: Any) -> list[str]:
    """The variables that `template` uses. Raises InvalidInput for a wrong shape or broken syntax."""
    if type == PromptType.TEXT:
        if not isinstance(template, str):
            raise InvalidInput("The template of a text prompt is a string; messages need type 'chat'.")
    else:
        _check_messages(template)
    try:
        return variables(template)
    except RenderError as error:
        raise InvalidInput(f"The template cannot be read: {error}") from error


def _check_messages(template: Any) -> None:
    if not isinstance(template, list) or not 1 <= len(template) <= MAX_MESSAGES:
        raise InvalidInput(f"The template of a chat prompt is a list of 1 to {MAX_MESSAGES} messages.")
    for index, item in enumerate(template):
        if problem := _problem_of(item):
            raise InvalidInput(f"template[{index}]: {problem}")


def _problem_of(item: Any) -> str | None:
    """Why `item` is neither {"role", "content"} nor {"type": "placeholder", "name"}."""
    if not isinstance(item, dict):
        return 'must be {"role", "content"} or {"type": "placeholder", "name"}.'
    if item.get("type") == "placeholder":
        if set(item) != {"type", "name"} or not isinstance(item["name"], str) or not item["name"]:
            return "a placeholder has 'type' and a 'name', nothing else."
        return None
    if set(item) != {"role", "content"}:
        return f"a message has 'role' and 'content', nothing else; this one has {sorted(item)}."
    if item["role"] not in ROLES:
        return f"the role {item['role']!r} must be one of {', '.join(ROLES)}."
    return None if _is_content(item["content"]) else "content must be a string, or a list of parts."


def _is_content(content: Any) -> bool:
    """Text, or parts as vendors take them: [{"type": "text", "text": "…"}, …]."""
    return isinstance(content, str) or (
        isinstance(content, list) and all(isinstance(part, dict) for part in content)
    )


def hash_content(type: str, template: Any, config: dict[str, Any]) -> str:
    """Hex SHA-256 that is equal for equal content, whatever the order of keys."""
    content = msgspec.json.encode([type, template, config], order="deterministic")
    return hashlib.sha256(content).hexdigest()
