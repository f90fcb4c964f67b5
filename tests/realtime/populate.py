"""Fills the database of the test servers and prints, as JSON, what tests need to know of it."""

# ruff: noqa: E402  models can be imported once Django is set up
import json
import os
import sys
from decimal import Decimal

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "autoforge.settings")
django.setup()

from django.contrib.auth import get_user_model
from django.contrib.sessions.backends.cached_db import SessionStore
from django.core.management import call_command
from django.test import Client

from autoforge.models import Membership, Project, Role
from autoforge.services import create_api_key
from evaluations.models import Dataset, Run, RunState
from prompts.models import ModelEndpoint


def run_of(dataset: Dataset, state: RunState = RunState.QUEUED) -> str:
    run = Run.objects.create(
        project=dataset.project, dataset=dataset, state=state,
        prompts=[], endpoints=[], concurrency=4, last_case_id=0, total=20,
    )  # fmt: skip
    return str(run.pk)


def session_of(username: str, project: Project, *, is_staff: bool = False) -> str:
    user = get_user_model().objects.create_user(username, password="a long password", is_staff=is_staff)
    Membership.objects.create(user=user, project=project, role=Role.VIEWER)
    client = Client()
    client.force_login(user)
    session: SessionStore = client.session
    return session.session_key


def populate() -> dict[str, object]:
    acme, rival = (Project.objects.create(name=name) for name in ("acme", "rival"))
    for name, settings in {
        "echo": {"output": "echo", "tokens_per_s": 400},
        "steady": {"output": "echo", "latency_ms": 200},
        "slow": {"output": "one two three four five six seven eight", "tokens_per_s": 5},
    }.items():
        ModelEndpoint.objects.create(
            project=acme, name=name, provider="simulated", model="simulated", settings=settings
        )
    ModelEndpoint.objects.create(
        project=acme,
        name="priced",
        provider="simulated",
        settings={"output": "echo"},
        input_usd_per_mtok=1,
        output_usd_per_mtok=1,
    )
    cases, foreign_cases = (Dataset.objects.create(project=each, name="cases") for each in (acme, rival))
    editor = create_api_key(acme, name="editor", role=Role.EDITOR)
    return {
        "acme": acme.pk,
        "rival": rival.pk,
        "editor": editor.secret,
        "editor_public": editor.key.public_id,
        "viewer": create_api_key(acme, name="viewer", role=Role.VIEWER).secret,
        "broke": create_api_key(acme, name="broke", role=Role.EDITOR, budget_usd=Decimal(0)).secret,
        "hasty": create_api_key(acme, name="hasty", role=Role.EDITOR, rate_limit_per_min=3).secret,
        "stranger": create_api_key(rival, name="stranger", role=Role.OWNER).secret,
        "run": run_of(cases),
        "old_runs": [run_of(cases, RunState.FINISHED) for _ in range(100)],  # as many as one may follow
        "foreign_run": run_of(foreign_cases),
        "session": session_of("ada", acme),
        "staff_session": session_of("grace", acme, is_staff=True),
    }


if __name__ == "__main__":
    call_command("migrate", verbosity=0)
    json.dump(populate(), sys.stdout)
