"""Puts the pieces of a streamed message together (tool calls, reasoning, log probabilities)."""

from typing import Any

# These come whole, some servers repeat them in every chunk; other strings come in pieces.
_WHOLE = {"id", "type", "name", "role"}


def merge_delta(total: dict[str, Any], piece: dict[str, Any]) -> None:
    """Add a delta's fields to `total`: strings grow, lists grow (by `index` if their items have one)."""
    for name, value in piece.items():
        known = total.get(name)
        if isinstance(value, str) and isinstance(known, str) and name not in _WHOLE:
            total[name] = known + value
        elif isinstance(value, list):
            total[name] = _merge_items(known if isinstance(known, list) else [], value)
        elif isinstance(value, dict):
            total[name] = dict(known) if isinstance(known, dict) else {}
            merge_delta(total[name], value)
        elif value is not None and not (name in _WHOLE and value == ""):
            total[name] = value


def _merge_items(known: list[Any], pieces: list[Any]) -> list[Any]:
    merged = list(known)
    for piece in pieces:
        position = _position(merged, piece)
        if position is None:
            merged.append({} if isinstance(piece, dict) else piece)
            position = len(merged) - 1
        if isinstance(piece, dict):
            merge_delta(merged[position], piece)
    return merged


def _position(items: list[Any], piece: Any) -> int | None:
    """Where the item that `piece` continues stands."""
    if not isinstance(piece, dict) or "index" not in piece:
        return None
    same = (
        i for i, item in enumerate(items) if isinstance(item, dict) and item.get("index") == piece["index"]
    )
    return next(same, None)


def without_index(extra: dict[str, Any]) -> dict[str, Any]:
    """The merged fields as an unstreamed message has them: tool calls in order, without `index`."""
    calls = extra.get("tool_calls")
    if not isinstance(calls, list):
        return extra
    ordered = sorted(
        (call for call in calls if isinstance(call, dict)), key=lambda call: call.get("index", 0)
    )
    return extra | {"tool_calls": [{k: v for k, v in call.items() if k != "index"} for call in ordered]}


def as_delta(extra: dict[str, Any]) -> dict[str, Any]:
    """The inverse of `without_index`: one delta that carries every field."""
    calls = extra.get("tool_calls")
    if not isinstance(calls, list):
        return extra
    whole = (call for call in calls if isinstance(call, dict))
    return extra | {"tool_calls": [{"index": i} | call for i, call in enumerate(whole)]}
