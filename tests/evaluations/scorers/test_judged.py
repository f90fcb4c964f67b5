"""llm-rubric: what the judge is asked, how its answer is read, and that its failure is nobody's."""

import asyncio
from typing import Any

import pytest

from evaluations.scorers import (
    Output,
    ScorerError,
    ScoreRow,
    assess,
    assess_async,
    needs_judge,
    parse_scorers,
    render_specs,
)


class Examiner:
    """A judge that gives one answer and remembers what it was asked."""

    def __init__(self, answer: str | Exception) -> None:
        self.answer = answer
        self.asked: list[tuple[str | None, list[dict[str, Any]]]] = []

    async def __call__(self, endpoint: str | None, messages: list[dict[str, Any]]) -> str:
        self.asked.append((endpoint, messages))
        await asyncio.sleep(0)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


async def examined(answer: str | Exception, type_: str = "llm-rubric", **fields: Any) -> ScoreRow:
    specs = parse_scorers([{"type": type_, "value": "is polite", **fields}])
    assessment = await assess_async(specs, Output("Good day!"), judge=Examiner(answer))
    (row,) = assessment.scores
    assert (assessment.error is None) is (row.error is None)
    return row


@pytest.mark.parametrize(
    ("answer", "passed", "value"),
    [
        ('{"pass": true, "score": 0.9, "reason": "ok"}', True, 0.9),
        ('{"pass": false, "score": 0.2, "reason": "rude"}', False, 0.2),
        ('```json\n{"reason": "ok", "pass": true}\n```', True, 1.0),
        ('I think {so}: {"pass": false}', False, 0.0),
        ('{"pass": "yes"}', True, 1.0),
        ('{"pass": "no", "score": "0.25"}', False, 0.25),
        ('{"score": 0.4}', True, 0.4),
        ("{'pass': True, 'score': 0.5,}", True, 0.5),
        ("{pass: no, reason: rude}", False, 0.0),
        ('An example {"pass": true}. Mine: {"pass": false, "reason": "rude"}', False, 0.0),
    ],
)
async def test_an_answer_is_read_with_tolerance(answer, passed, value):
    row = await examined(answer)
    assert (row.passed, row.value, row.error) == (passed, value, None)
    opposite = await examined(answer, "not-llm-rubric")
    assert (opposite.passed, opposite.value) == (not passed, 1 - value)


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "I cannot say.",
        "[1]",
        '{"verdict": "good"}',
        "{" * 500,
        "{" * 3_000 + "}",
        '{"pass": true, "score": 8}',
    ],
)
@pytest.mark.parametrize("type_", ["llm-rubric", "not-llm-rubric"])
async def test_an_answer_without_a_verdict_is_an_error(answer, type_):
    row = await examined(answer, type_)
    assert (row.passed, row.value) == (None, None)
    assert row.error


async def test_a_judge_that_fails_is_an_error():
    row = await examined(ConnectionError("the provider is down"))
    assert (row.passed, row.value, row.error) == (None, None, "the judge failed: the provider is down")


async def test_a_reason_can_be_stored_whatever_the_judge_wrote():
    row = await examined(r'{"pass": true, "reason": "a\u0000b \ud800"}')
    assert row.reason == "a\ufffdb ?"


async def test_a_cancelled_judge_is_cancelled():
    specs = parse_scorers([{"type": "llm-rubric", "value": "is polite"}])

    async def never(endpoint: str | None, messages: list[dict[str, Any]]) -> str:
        await asyncio.Event().wait()
        return ""

    task = asyncio.create_task(assess_async(specs, Output("x"), judge=never))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize(
    ("answer", "passed"),
    [
        ('{"pass": true, "score": 0.7}', True),
        ('{"pass": true, "score": 0.6}', False),
        ('{"pass": false, "score": 1}', False),
    ],
)
async def test_a_threshold_needs_both_pass_and_score(answer, passed):
    assert (await examined(answer, threshold=0.7)).passed is passed


async def test_the_judge_sees_criterion_and_output_and_nothing_is_filled_in_twice():
    judge = Examiner('{"pass": true}')
    specs = parse_scorers([{"type": "llm-rubric", "value": "mentions {{ topic }}", "provider": "strong"}])
    rendered = render_specs(specs, lambda text: text.replace("{{ topic }}", "cats"))
    await assess_async(rendered, Output("I like {{ rubric }}."), judge=judge)
    ((endpoint, messages),) = judge.asked
    assert endpoint == "strong"
    assert [message["role"] for message in messages] == ["system", "user"]
    assert "mentions cats" in messages[1]["content"]
    assert "I like {{ rubric }}." in messages[1]["content"]


@pytest.mark.parametrize(
    ("prompt", "messages"),
    [
        ("{{output}} vs {{ rubric }}", [{"role": "user", "content": "OUT vs is polite"}]),
        ('[{"role": "system", "content": "{{ rubric }}"}]', [{"role": "system", "content": "is polite"}]),
        ([{"role": "user", "content": "{{- output -}}"}], [{"role": "user", "content": "OUT"}]),
        ("{{ output }} on {{ topic }}", [{"role": "user", "content": "OUT on cats"}]),
    ],
)
async def test_a_prompt_of_ones_own(prompt, messages):
    judge = Examiner('{"pass": true}')
    specs = parse_scorers([{"type": "llm-rubric", "value": "is polite", "rubricPrompt": prompt}])
    specs = render_specs(specs, lambda text: text.replace("{{ topic }}", "cats"))
    await assess_async(specs, Output("OUT"), judge=judge)
    assert judge.asked == [(None, messages)]


async def test_other_scorers_are_judged_beside_it():
    specs = parse_scorers(
        [{"type": "equals", "value": "x"}, {"type": "llm-rubric", "value": {"tone": "polite"}}]
    )
    assert needs_judge(specs) and not needs_judge(specs[:1])
    assessment = await assess_async(specs, Output("x"), judge=Examiner('{"pass": true, "score": 0.5}'))
    assert (assessment.passed, assessment.score) == (True, 0.75)
    assert assess(specs, Output("x")).passed is None


@pytest.mark.parametrize("value", ["", "  ", {}, 3])
def test_a_criterion_is_needed(value):
    with pytest.raises(ScorerError, match="what the output has to meet"):
        parse_scorers([{"type": "llm-rubric", "value": value}])
