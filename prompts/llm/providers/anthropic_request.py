"""Turns a chat-completions request into one of Anthropic's Messages API."""

from collections.abc import Iterable
from typing import Any

import msgspec

from prompts.llm.providers.base import ProviderError, Request, text_of

DEFAULT_MAX_TOKENS = 4_096  # the Messages API wants a number
_SYSTEM_ROLES = {"system", "developer"}
_RENAMED = {"max_completion_tokens": "max_tokens", "stop": "stop_sequences"}
_TRANSLATED = {"user", "seed", "n", "tools", "tool_choice", "stop"}


def body_of(request: Request) -> dict[str, Any]:
    """The body without `stream`.

    Parameters are passed on, OpenAI's names translated. `seed` and `n` have no counterpart and are
    dropped: a repeat is a call of its own. Raises ProviderError (invalid_request).
    """
    try:
        body = {"max_tokens": DEFAULT_MAX_TOKENS} | _params(request.params)
        messages = [m for m in request.messages if m.get("role") not in _SYSTEM_ROLES]
        system = "\n\n".join(text_of(m) for m in request.messages if m.get("role") in _SYSTEM_ROLES)
        if system:
            body["system"] = system
        return body | {"model": request.endpoint.model, "messages": [_message(m) for m in messages]}
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        sentence = f"A message or tool does not have the expected shape: {error!r}."
        raise ProviderError("invalid_request", sentence) from error


def _params(params: dict[str, Any]) -> dict[str, Any]:
    body = {_RENAMED.get(name, name): value for name, value in params.items() if name not in _TRANSLATED}
    if "stop" in params:
        stop = params["stop"]
        body["stop_sequences"] = [stop] if isinstance(stop, str) else stop
    if "user" in params:
        body["metadata"] = {"user_id": params["user"]}
    if "tools" in params:
        body["tools"] = [_tool(tool) for tool in params["tools"]]
    if "tool_choice" in params:
        body["tool_choice"] = _tool_choice(params["tool_choice"])
    return body


def _tool(tool: dict[str, Any]) -> dict[str, Any]:
    function = tool.get("function")
    if function is None:
        return tool  # already in Anthropic's shape
    schema = function.get("parameters") or {"type": "object", "properties": {}}
    description = {"description": function["description"]} if function.get("description") else {}
    return {"name": function["name"], "input_schema": schema} | description


def _tool_choice(choice: Any) -> Any:
    if isinstance(choice, dict):
        return {"type": "tool", "name": choice["function"]["name"]} if "function" in choice else choice
    return {"type": {"required": "any"}.get(choice, choice)}


def _message(message: dict[str, Any]) -> dict[str, Any]:
    if message["role"] == "tool":
        result = {"type": "tool_result", "tool_use_id": message["tool_call_id"], "content": text_of(message)}
        return {"role": "user", "content": [result]}
    calls = [_tool_use(call) for call in message.get("tool_calls") or []]
    content = message.get("content")
    if isinstance(content, list):
        return {"role": message["role"], "content": [*_parts(content), *calls]}
    if calls:
        text = [{"type": "text", "text": content}] if content else []
        return {"role": message["role"], "content": [*text, *calls]}
    return {"role": message["role"], "content": content or ""}


def _tool_use(call: dict[str, Any]) -> dict[str, Any]:
    function = call["function"]
    arguments = msgspec.json.decode(function.get("arguments") or "{}")
    return {"type": "tool_use", "id": call["id"], "name": function["name"], "input": arguments}


def _parts(parts: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return [_image(part) if part.get("type") == "image_url" else part for part in parts]


def _image(part: dict[str, Any]) -> dict[str, Any]:
    """`image_url` with a URL or a base64 data URL (RFC 2397)."""
    url: str = part["image_url"]["url"]
    if not url.startswith("data:"):
        return {"type": "image", "source": {"type": "url", "url": url}}
    media_type, _, data = url.removeprefix("data:").partition(";base64,")
    return {"type": "image", "source": {"type": "base64", "media_type": media_type, "data": data}}
