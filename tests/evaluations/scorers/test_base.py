"""Reading, rendering and adding up scorers."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluations.scorers import (
    Output,
    ScorerError,
    ScorerSpec,
    assess,
    parse_scorers,
    render_specs,
    scorer_names,
)

YES, NO, ERROR = (
    {"type": "contains", "value": "y"},
    {"type": "contains", "value": "n"},
    {"type": "cost", "threshold": 1},
)


def assessed(*raw, threshold=None):
    return assess(parse_scorers(list(raw)), Output("y"), threshold=threshold)


def test_every_promised_scorer_exists():
    promised = (
        "equals contains icontains contains-any contains-all icontains-any icontains-all starts-with regex "
        "is-json contains-json levenshtein similar word-count latency cost finish-reason llm-rubric"
    )
    assert set(promised.split()) <= set(scorer_names())


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (
            {"type": "equal", "value": 1},
            'scorers[1].type (equal): is no known scorer; did you mean "equals"?',
        ),
        ({"type": "not-iconta", "value": 1}, 'did you mean "not-icontains"?'),
        ({"type": "not-not-equals", "value": 1}, "is no known scorer"),
        ({"type": "zzzz"}, "is no known scorer. Known: contains, "),
        ({"value": 1}, "scorers[1].type: is missing"),
        ({"type": 7}, "scorers[1].type (7): is missing"),
        ("equals", "scorers[1].type: is missing"),
        ({"type": "equals"}, "scorers[1].value (equals): is missing"),
        (
            {"type": "equals", "value": 1, "treshold": 2},
            'scorers[1].treshold (equals): is no field of a scorer; did you mean "threshold"?',
        ),
        (
            {"type": "levenshtein", "value": "a", "threshold": "x"},
            "threshold (levenshtein): has the wrong type",
        ),
        ({"type": "levenshtein", "value": "a", "threshold": True}, "has the wrong type"),
        (
            {"type": "levenshtein", "value": "a", "threshold": -1},
            "threshold (levenshtein): must be at least 0, not -1",
        ),
        ({"type": "latency", "threshold": float("inf")}, "must be at least 0"),
        ({"type": "latency", "threshold": float("nan")}, "must be at least 0"),
        ({"type": "similar", "value": "a", "threshold": 75}, "must be between 0 and 1, not 75"),
        ({"type": "equals", "value": 1, "weight": -1}, "weight (equals): must be a number of at least 0"),
        ({"type": "equals", "value": 1, "weight": None}, "weight (equals): has the wrong type"),
        ({"type": "equals", "value": 1, "metric": 3}, "metric (equals): has the wrong type"),
        ({"type": "regex", "value": "("}, "value (regex): is an invalid regex pattern"),
    ],
)
def test_a_wrong_scorer_is_named_with_what_to_change(raw, says):
    with pytest.raises(ScorerError) as refused:
        parse_scorers([YES, raw])
    assert says in str(refused.value)
    assert refused.value.index == 1


@pytest.mark.parametrize("value", ["{{ expected }}", ["a", "{% if x %}b{% endif %}"], {"a": ["{{ b }}"]}])
def test_a_template_is_not_judged_before_it_is_rendered(value):
    assert parse_scorers(
        [{"type": type_, "value": value} for type_ in ("regex", "is-json", "word-count", "similar")]
    )


def test_rendering_reaches_every_string_and_leaves_the_rest_alone():
    value = {"a": ["{{ x }}", "plain", 3], "b": {"c": "{% y %}"}}
    template, plain = parse_scorers([{"type": "equals", "value": value}, YES])
    rendered, same = render_specs([template, plain], len)
    assert rendered.value == {"a": [7, "plain", 3], "b": {"c": 7}}
    assert same is plain
    assert template.value == value


def test_all_must_pass():
    assert assessed(YES, YES).passed is True
    failed = assessed(YES, NO)
    assert (failed.passed, failed.score, failed.error) == (False, 0.5, None)
    assert [row.passed for row in failed.scores] == [True, False]


def test_without_scorers_everything_passes():
    assert (assessed().passed, assessed().score, assessed().scores) == (True, 1.0, [])


def test_a_threshold_replaces_the_rule_that_all_must_pass():
    assert assessed(YES, NO, threshold=0.5).passed is True
    assert assessed(YES, NO, threshold=0.51).passed is False
    assert assessed(NO, threshold=0).passed is True


def test_weights_weigh_and_weight_zero_only_informs():
    assert assessed(YES | {"weight": 3}, NO).score == 0.75
    informed = assessed(YES, NO | {"weight": 0})
    assert (informed.passed, informed.score) == (True, 1.0)
    assert (informed.scores[1].passed, informed.scores[1].value, informed.scores[1].weight) == (
        True,
        0.0,
        0.0,
    )
    assert assessed(NO | {"weight": 0}).score == 0.0


def test_an_error_is_never_a_failure():
    erred = assessed(NO, ERROR, threshold=0)
    assert (erred.passed, erred.score) == (None, None)
    assert erred.error is not None and erred.error.startswith("cost: ")
    assert [row.passed for row in erred.scores] == [False, None]
    assert assessed(ERROR | {"weight": 0}).passed is None


def test_an_unknown_scorer_in_a_stored_run_is_an_error():
    assert assess([ScorerSpec("rouge-n", "a")], Output("a")).error == (
        'rouge-n: type: "rouge-n" is no known scorer. Known: ' + ", ".join(scorer_names()) + "."
    )


def test_rows_carry_what_a_result_stores():
    (row,) = assessed(YES | {"type": "not-contains", "metric": "style", "weight": 2}).scores
    assert (row.scorer, row.metric, row.weight, row.passed) == ("not-contains", "style", 2.0, False)
    assert row.reason == 'contains "y"'


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 100)), min_size=1))
def test_a_score_lies_between_0_and_1(parts):
    assessment = assessed(*((YES if passes else NO) | {"weight": weight} for passes, weight in parts))
    assert assessment.score is not None and -1e-9 <= assessment.score <= 1 + 1e-9
    assert assessment.passed is all(passes or weight == 0 for passes, weight in parts)


def test_hostile_outputs_are_judged_in_bounded_time():
    specs = parse_scorers(
        [
            {"type": "regex", "value": "(a|aa)+$"},
            {"type": "contains-json"},
            {"type": "is-json"},
            {"type": "levenshtein", "value": "a" * 1_000},
            {"type": "word-count", "value": {"max": 5}},
        ]
    )
    hostile = ("a" * 200_000 + "!", "[{" * 100_000, '{"' * 100_000, "[1," * 70_000, " " * 200_000)
    started = time.process_time()
    for text in hostile:
        assess(specs, Output(text))
    # Unbounded, each of them takes from ten seconds to forever.
    assert time.process_time() - started < 8
