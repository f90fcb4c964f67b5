"""One scorer, one output: how the tests of every family ask for a verdict."""

from typing import Any

from evaluations.scorers import Output, ScoreRow, assess, parse_scorers


def judged(type_: str, value: Any, output: str | Output, **fields: Any) -> ScoreRow:
    """The verdict of one scorer, read from JSON as in a run."""
    (spec,) = parse_scorers([{"type": type_, "value": value, **fields}])
    (row,) = assess([spec], Output(output) if isinstance(output, str) else output).scores
    return row


def verdict(type_: str, value: Any, output: str | Output, **fields: Any) -> bool | None:
    """Passed, failed, or None for an error; checks that `not-` says the opposite with 1 − the value."""
    row = judged(type_, value, output, **fields)
    opposite = judged(f"not-{type_}", value, output, **fields)
    if row.error is not None:
        assert opposite.error == row.error
        assert row.value is None and row.passed is None and opposite.passed is None
        return None
    assert row.value is not None and opposite.value is not None
    assert opposite.passed is not row.passed
    assert abs(row.value + opposite.value - 1) < 1e-12
    return row.passed
