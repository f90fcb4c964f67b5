"""How cells are executed: chat prompts, scorers of cases, judges, tokens, recovery, commands."""

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.utils import timezone

from autoforge.auth import Actor
from autoforge.celery import app
from autoforge.models import Project
from evaluations import claims, executor
from evaluations.events import CellTokens
from evaluations.execution import clean
from evaluations.models import Result, Run, RunWorker
from evaluations.recording import FinishedCell, record_batch
from evaluations.schemas import NewRun, PromptRef
from evaluations.services import start_run
from evaluations.worker_names import has_died, new_worker_name
from prompts.models import ModelEndpoint, Prompt
from prompts.services import create_endpoint, create_prompt
from tests.evaluations.conftest import EQUALS, wait_for_end

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def waiting(prompt: Prompt, endpoint: ModelEndpoint, dataset: str, project: Project, actor: Actor) -> Run:
    """A run that nobody was told of."""
    new = NewRun(prompts=[PromptRef("greet")], models=["sim"], dataset=dataset, scorers=EQUALS)
    return start_run(project, new, actor=actor, enqueue=False)


def test_a_command_executes_its_run_itself(waiting: Run) -> None:
    run = executor.run_to_end(waiting.pk)
    assert (run.state, run.done, run.passed) == ("finished", 10, 5)
    assert run.wall_s is not None and run.started_at < run.finished_at


def test_celery_executes_runs_as_well(ended: Any, settings: Any) -> None:
    settings.EXECUTOR = "celery"
    app.conf.task_always_eager = True
    try:
        assert ended(concurrency=150)["done"] == 10
    finally:
        app.conf.task_always_eager = False


def test_an_abandoned_run_is_taken_up_once(api: Any, waiting: Run) -> None:
    Run.objects.filter(pk=waiting.pk).update(enqueued_at=timezone.now())
    assert executor.take_up_runs() == 0  # its message may still be on its way
    long_ago = timezone.now() - timedelta(minutes=5)
    dead = RunWorker.objects.create(run=waiting, name="dead", slots=8, heartbeat_at=long_ago, leased_usd=1)
    Run.objects.filter(pk=waiting.pk).update(state="running", enqueued_at=long_ago, leased_usd=1)
    waiting.shards.update(worker=dead)
    assert executor.take_up_runs() == 1 and executor.take_up_runs() == 0
    assert wait_for_end(api, str(waiting.pk))["done"] == 10
    waiting.refresh_from_db()
    assert waiting.leased_usd == 0 and not waiting.workers.exists()


def test_a_command_gets_no_help_while_it_lives(waiting: Run) -> None:
    worker = claims.join_run(waiting.pk, "alive")
    assert worker is not None and executor.take_up_runs() == 0
    assert claims.next_step(waiting.pk) is claims.Step.WORK
    while claims.claim_shard(worker):
        pass
    assert claims.next_step(waiting.pk) is claims.Step.WAIT


def test_a_run_gets_help_while_there_is_something_to_claim(api: Any, waiting: Run) -> None:
    Run.objects.filter(pk=waiting.pk).update(enqueued_at=timezone.now(), concurrency=1)
    first = claims.join_run(waiting.pk, "alive")
    assert first is not None and executor.take_up_runs() == 0  # one worker is enough for one lane
    Run.objects.filter(pk=waiting.pk).update(concurrency=2)
    assert executor.take_up_runs() == 1
    assert wait_for_end(api, str(waiting.pk))["done"] == 10


def test_a_worker_of_this_machine_that_died_is_not_waited_for(api: Any, waiting: Run) -> None:
    name = new_worker_name().split("~")
    assert not has_died("~".join(name)) and not has_died("elsewhere~" + "~".join(name[1:]))
    dead = claims.join_run(waiting.pk, "~".join([*name[:2], "4194999", name[3]]))  # above the largest pid
    assert dead is not None and has_died(dead.name)
    while claims.claim_shard(dead):
        pass
    Run.objects.filter(pk=waiting.pk).update(enqueued_at=timezone.now() - timedelta(seconds=3))
    assert executor.take_up_runs() == 1
    assert wait_for_end(api, str(waiting.pk))["done"] == 10


def test_two_workers_never_have_more_slots_than_the_run(waiting: Run) -> None:
    first, second = (claims.join_run(waiting.pk, name) for name in ("a", "b"))
    assert claims.beat(first, 10, 0).slots == 5
    RunWorker.objects.filter(pk=first.pk).update(slots=8)  # three calls have not ended
    assert (claims.beat(second, 10, 0).slots, claims.beat(second, 10, 0).part) == (2, 5)
    assert claims.beat(first, 10, 5).slots == 5 and claims.beat(second, 10, 2).slots == 5
    claims.leave_run(first)
    assert claims.beat(second, 10, 5).slots == 10


def test_a_cell_recorded_twice_counts_once(waiting: Run) -> None:
    worker = claims.join_run(waiting.pk, "a")
    case = waiting.frozen_cases().first()
    cell = FinishedCell(case_id=case.pk, column=0, repeat=0, state="passed", output="first", latency_ms=5)
    assert record_batch(worker, [cell], []).counters.done == 1
    cell.output = "second"
    again = record_batch(worker, [cell], [])
    assert (again.ids, again.counters.done, again.counters.passed) == ({}, 1, 1)
    assert Result.objects.get().output == "first"


@pytest.fixture
def leased(waiting: Run) -> RunWorker:
    """A worker of a run with a budget of 2 dollars, of which it has leased one."""
    Run.objects.filter(pk=waiting.pk).update(budget_usd=2)
    worker = claims.join_run(waiting.pk, "a")
    assert worker is not None and claims.lease_budget(worker, Decimal(1))
    return worker


def spent(worker: RunWorker) -> tuple[Decimal, Decimal, Decimal]:
    """What the run has cost, what its workers have leased, and what this one has."""
    run = Run.objects.get(pk=worker.run_id)
    return run.cost_usd, run.leased_usd, RunWorker.objects.get(pk=worker.pk).leased_usd


def test_money_without_a_result_is_counted_once_although_the_batch_is_repeated(leased: RunWorker) -> None:
    case = Run.objects.get().frozen_cases().first()
    cell = FinishedCell(case_id=case.pk, column=0, repeat=0, state="passed", cost_usd=Decimal("0.25"))
    for _ in range(2):  # as after a commit whose answer was lost
        record_batch(leased, [cell], [], has_budget=True, unfinished_usd=Decimal("0.5"))
        assert spent(leased) == (Decimal("0.75"), Decimal("0.25"), Decimal("0.25"))
    record_batch(leased, [], [], has_budget=True, unfinished_usd=Decimal("0.6"))
    assert spent(leased) == (Decimal("0.85"), Decimal("0.15"), Decimal("0.15"))


def test_money_of_a_worker_that_was_given_up_is_counted_once_as_well(leased: RunWorker) -> None:
    claims.leave_run(RunWorker.objects.get())
    for _ in range(2):
        record_batch(leased, [], [], has_budget=True, unfinished_usd=Decimal("0.5"))
    run = Run.objects.get()
    assert (run.cost_usd, run.leased_usd) == (Decimal("0.5"), 0)


def test_messages_of_a_case_take_a_placeholders_place(
    api: Any, ended: Any, project: Project, actor: Actor
) -> None:
    template = [{"role": "system", "content": "Be {{ mood }}"}, {"type": "placeholder", "name": "input"}]
    create_prompt(project, name="chat", type="chat", template=template, actor=actor)
    api.post("/api/v1/datasets", {"name": "talks"}).expect(201)
    case = {"vars": {"mood": "kind", "input": [{"role": "user", "content": "hello"}]}, "expected": "hello"}
    api.post("/api/v1/datasets/talks/cases", case).expect(201)
    run = ended(prompts=[{"name": "chat"}], dataset="talks")
    assert (run["passed"], run["failed"]) == (1, 0)


def test_a_case_that_the_prompt_cannot_take_is_an_error(api: Any, ended: Any) -> None:
    api.post("/api/v1/datasets/support/cases", {"vars": {"other": 1}}).expect(201)
    run = ended()
    assert (run["state"], run["errors"]) == ("finished", 1)
    row = api.get(f"/api/v1/runs/{run['id']}/results?state=error").expect(200)["items"][0]
    assert row["error_code"] == "render" and "q" in row["error"]


def test_scorers_of_a_case_come_after_the_runs_own(api: Any, ended: Any) -> None:
    own = [{"type": "contains", "value": "{{ q }}"}, {"type": "contains", "value": "absent"}]
    api.post("/api/v1/datasets", {"name": "strict"}).expect(201)
    case = {"vars": {"q": "x"}, "expected": "Say x", "scorers": own}
    api.post("/api/v1/datasets/strict/cases", case).expect(201)
    run = ended(dataset="strict")
    row = api.get(f"/api/v1/runs/{run['id']}/results").expect(200)["items"][0]
    assert [score["passed"] for score in row["scores"]] == [True, True, False]
    assert row["state"] == "failed" and row["score"] == pytest.approx(2 / 3)


def test_a_judge_is_a_model_like_any_other(api: Any, ended: Any, project: Project) -> None:
    verdict = '{"pass": true, "score": 0.8, "reason": "kind"}'
    create_endpoint(project, name="judge", provider="simulated", settings={"output": verdict})
    run = ended(scorers=[{"type": "llm-rubric", "value": "is kind", "provider": "judge"}])
    assert (run["passed"], run["errors"]) == (10, 0)
    row = api.get(f"/api/v1/runs/{run['id']}/results").expect(200)["items"][0]
    assert row["score"] == 0.8 and row["scores"][0]["reason"] == "kind"


def test_a_judge_that_fails_is_an_error_and_no_failure(ended: Any, project: Project) -> None:
    create_endpoint(project, name="judge", provider="simulated", settings={"error_rate": 1.0})
    run = ended(scorers=[{"type": "llm-rubric", "value": "is kind", "provider": "judge"}])
    assert (run["errors"], run["failed"], run["passed"]) == (10, 0, 0)


def test_tokens_of_running_cells_are_heard(ended: Any, heard: list[Any], endpoint: ModelEndpoint) -> None:
    endpoint.settings = {"output": "one two three four", "tokens_per_s": 6}
    endpoint.save()
    run = ended(scorers=[])
    texts: dict[Any, str] = {}
    for event in heard:
        if isinstance(event, CellTokens) and str(event.run_id) == run["id"]:
            key = (event.case, event.column, event.repeat)
            texts[key] = texts.get(key, "") + event.text
    assert len(texts) == 10 and set(texts.values()) <= {
        "one two three four",
        "one two three",
        "one two",
        "one",
    }


def test_what_no_database_can_hold_is_replaced() -> None:
    assert clean("a\0b\ud800ü") == "a\ufffdb\ufffdü"
    assert clean("\ud83d\ude00 plain") == "😀 plain"
