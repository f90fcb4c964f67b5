"""Housekeeping: what is of no use any more goes, and nothing else."""

from datetime import timedelta
from importlib import import_module
from typing import Any

import pytest
from celery import current_app
from django.conf import settings
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.auth.models import User
from django.contrib.contenttypes.models import ContentType
from django.contrib.sessions.models import Session
from django.core.management import call_command
from django.utils import timezone

from autoforge.models import ApiKey, IdempotentRequest, Project
from evaluations.models import Result, Run, RunState, RunWorker
from evaluations.schemas import NewCase, NewRun, PromptRef
from evaluations.services import add_cases, create_dataset, start_run
from prompts.services import create_endpoint, create_prompt

NOW = timezone.now()
YEARS = timedelta(days=1_000)

pytestmark = pytest.mark.django_db


@pytest.fixture
def runs(project: Project, actor: Any) -> list[Run]:
    """One that ended years ago, one just now, and a live one: each with a result and a dead worker."""
    create_prompt(project, name="greet", type="text", template="Say {{ q }}", actor=actor)
    create_endpoint(project, name="sim", provider="simulated")
    cases = add_cases(create_dataset(project, name="one"), [NewCase(vars={"q": "hi"})])
    new = NewRun(prompts=[PromptRef("greet")], models=["sim"], dataset="one", scorers=[])
    runs = [start_run(project, new, actor=actor, enqueue=False) for _ in range(3)]
    for run, finished_at in zip(runs, (NOW - YEARS, NOW, None), strict=True):
        RunWorker.objects.create(run=run, name="gone", heartbeat_at=NOW - YEARS)
        Result.objects.create(run=run, case=cases[0], column=0, state="passed")
        if finished_at:
            Run.objects.filter(pk=run.pk).update(state=RunState.FINISHED, finished_at=finished_at)
    return runs


def test_by_default_runs_stay_and_only_their_dead_workers_go(runs):
    call_command("keep_house")
    assert Run.objects.count() == Result.objects.count() == 3
    assert RunWorker.objects.get().run == runs[2]


def test_runs_that_ended_long_ago_go_where_the_operator_says_so(runs, settings, capsys):
    settings.KEEP_DAYS = settings.KEEP_DAYS | {"runs": timedelta(days=30)}
    call_command("keep_house")
    assert set(Run.objects.all()) == set(runs[1:])
    assert {result.run_id for result in Result.objects.all()} == {run.pk for run in runs[1:]}
    assert "       1  runs\n" in capsys.readouterr().out


def test_expired_answers_sessions_keys_and_log_entries_go(project, api, settings):
    for age in (timedelta(hours=25), timedelta(hours=1)):
        IdempotentRequest.objects.create(project=project, key=str(age), created_at=NOW - age)
        Session.objects.create(session_key=str(age), expire_date=NOW + timedelta(hours=2) - age)
    live = ApiKey.objects.get()
    for name, ended in (("old", NOW - YEARS), ("new", NOW)):
        fields = {"public_id": name, "secret_hash": name, "role": "viewer"}
        ApiKey.objects.create(project=project, name=name, revoked_at=ended, **fields)
    user = User.objects.create_user("ada")
    kind = ContentType.objects.get_for_model(Project)
    for action_time in (NOW - YEARS, NOW):
        entry = {"user": user, "content_type": kind, "object_id": "1", "action_flag": CHANGE}
        LogEntry.objects.create(action_time=action_time, **entry)
    call_command("keep_house")
    assert IdempotentRequest.objects.get().key == Session.objects.get().session_key == str(timedelta(hours=1))
    assert set(ApiKey.objects.values_list("name", flat=True)) == {live.name, "new"}
    assert LogEntry.objects.get().action_time == NOW
    api.get("/api/v1/prompts").expect(200)


def test_beat_sends_a_task_that_exists(runs):
    (entry,) = settings.CELERY_BEAT_SCHEDULE.values()
    import_module("monitoring.tasks")
    current_app.tasks[entry["task"]].apply().get()
    assert RunWorker.objects.count() == 1
