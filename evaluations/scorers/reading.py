"""Reads the scorers of a run: refuses what cannot work before a model is called, renders templates."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from evaluations.scorers.registry import NEGATION, Scorer, find_scorer, scorer_names, scorer_of
from evaluations.scorers.types import ScorerError, ScorerSpec

_FIELDS = ScorerSpec.__struct_fields__
# promptfoo's spelling of a field, next to ours.
_ALIASES = {"rubricPrompt": "rubric_prompt"}
# What a rubric prompt leaves open until the output is there; hidden from the renderer meanwhile.
PLACEHOLDER = re.compile(r"\{\{-?\s*(output|rubric)\s*-?\}\}")
_HIDDEN = re.compile("\ue000(output|rubric)\ue001")


def parse_scorers(raw: list[dict[str, Any]]) -> list[ScorerSpec]:
    """A run's scorers, checked as far as templates allow. Raises ScorerError for the first wrong one."""
    return [_parse(index, entry) for index, entry in enumerate(raw)]


def needs_judge(specs: Sequence[ScorerSpec]) -> bool:
    """Whether one of the scorers asks a model, so that only `assess_async` can run them."""
    return any(scorer_of(spec).is_judged for spec in specs)


def has_template(value: Any) -> bool:
    """Whether a string anywhere inside `value` contains `{{` or `{%`."""
    if isinstance(value, str):
        return "{{" in value or "{%" in value
    if isinstance(value, dict):
        return any(map(has_template, value.values()))
    return isinstance(value, list) and any(map(has_template, value))


def render_specs(specs: list[ScorerSpec], render: Callable[[str], Any]) -> list[ScorerSpec]:
    """The specs with `render` applied to each template in them; one without any is returned as it is.

    `{{ output }}` and `{{ rubric }}` in a rubric prompt stay: only the judge's scorer knows them.
    """
    return [_render_spec(spec, render) for spec in specs]


def _render_spec(spec: ScorerSpec, render: Callable[[str], Any]) -> ScorerSpec:
    if has_template(spec.value):
        spec = msgspec.structs.replace(spec, value=_rendered(spec.value, render))
    if has_template(prompt := _mapped(spec.rubric_prompt, _hide)):
        shown = _mapped(_rendered(prompt, render), _unhide)
        spec = msgspec.structs.replace(spec, rubric_prompt=shown)
    return spec


def _hide(text: str) -> str:
    return PLACEHOLDER.sub("\ue000\\1\ue001", text)


def _unhide(text: str) -> str:
    return _HIDDEN.sub(r"{{ \1 }}", text)


def _rendered(value: Any, render: Callable[[str], Any]) -> Any:
    return _mapped(value, lambda text: render(text) if has_template(text) else text)


def _mapped(value: Any, change: Callable[[str], Any]) -> Any:
    """`value` with `change` applied to every string in it, at any depth."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {key: _mapped(inner, change) for key, inner in value.items()}
    return [_mapped(inner, change) for inner in value] if isinstance(value, list) else value


def _parse(index: int, entry: Any) -> ScorerSpec:
    name = str(entry.get("type", "")) if isinstance(entry, dict) else ""
    try:
        spec = _converted(entry)
        _check(spec, has_value="value" in entry)
    except ScorerError as error:
        raise ScorerError(error.field, error.advice, index=index, scorer=name) from None
    return spec


def _converted(entry: Any) -> ScorerSpec:
    if not isinstance(entry, dict) or not isinstance(entry.get("type"), str):
        raise ScorerError("type", 'is missing: write an object like {"type": "equals", "value": "yes"}.')
    fields = {_ALIASES.get(str(key), str(key)): value for key, value in entry.items()}
    for key, value in fields.items():
        _check_field(key, value)
    return msgspec.convert(fields, ScorerSpec)


def _check_field(key: str, value: Any) -> None:
    if key not in _FIELDS:
        raise ScorerError(
            key, f"is no field of a scorer{_nearest(key, _FIELDS)} Fields: {', '.join(_FIELDS)}."
        )
    try:
        msgspec.convert({"type": "", key: value}, ScorerSpec)
    except msgspec.ValidationError as error:
        complaint = str(error).partition(" - ")[0]
        raise ScorerError(key, f"has the wrong type: {complaint[:1].lower()}{complaint[1:]}.") from None


def _check(spec: ScorerSpec, *, has_value: bool) -> None:
    entry = find_scorer(spec.type)
    if entry is None:
        negation = NEGATION if spec.type.startswith(NEGATION) else ""
        hint = _nearest(spec.type, [negation + name for name in scorer_names()])
        raise ScorerError("type", f"is no known scorer{hint} Known: {', '.join(scorer_names())}.")
    _check_numbers(spec, entry)
    if entry.needs_value and not has_value:
        raise ScorerError("value", "is missing: give what the output is compared with.")
    if not has_template(spec.value):
        entry.checks(entry.reads(spec))


def _nearest(name: str, names: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f'; did you mean "{close[0]}"?' if close else "."


def _check_numbers(spec: ScorerSpec, entry: Scorer) -> None:
    if not 0 <= spec.weight < math.inf:
        raise ScorerError("weight", f"must be a number of at least 0, not {spec.weight:g}.")
    highest, threshold = entry.highest_threshold, spec.threshold
    if threshold is not None and not (0 <= threshold <= highest and math.isfinite(threshold)):
        bound = "at least 0" if math.isinf(highest) else f"between 0 and {highest:g}"
        raise ScorerError("threshold", f"must be {bound}, not {threshold:g}.")
