"""What judging one output costs: the engine does it inline, once a cell."""

import pytest

from evaluations.scorers import Output, assess, parse_scorers, render_specs

ANSWER = Output(
    '{"label": "positive", "confidence": 0.93, "reason": "' + "The customer is happy. " * 20 + '"}'
)
SCHEMA = {
    "type": "object",
    "required": ["label"],
    "properties": {
        "label": {"enum": ["positive", "negative"]},
        "confidence": {"type": "number", "maximum": 1},
    },
}
SPECS = parse_scorers(
    [
        {"type": "equals", "value": ANSWER.text},
        {"type": "regex", "value": r'"label":\s*"(positive|negative)"'},
        {"type": "is-json"},
    ]
)


def test_equals_regex_and_json(benchmark):
    assert benchmark(assess, SPECS, ANSWER).passed is True


def test_json_of_a_schema(benchmark):
    specs = parse_scorers([{"type": "is-json", "value": SCHEMA}])
    assert benchmark(assess, specs, ANSWER).passed is True


def test_templates_that_are_none(benchmark):
    assert benchmark(render_specs, SPECS, str.upper) == SPECS


@pytest.mark.parametrize("kind", ["contains-any", "levenshtein", "word-count"])
def test_one_scorer(benchmark, kind):
    value = {"contains-any": "sad, happy", "levenshtein": ANSWER.text[3:], "word-count": {"min": 3}}[kind]
    specs = parse_scorers([{"type": kind, "value": value}])
    assert benchmark(assess, specs, ANSWER).passed is True
