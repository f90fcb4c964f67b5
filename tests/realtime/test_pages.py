"""Who may open the page of a live run."""

import re

import pytest
from django.contrib.auth import get_user_model
from django.test import Client

from autoforge.models import Membership, Project, Role
from evaluations.models import Dataset, Run

pytestmark = pytest.mark.django_db


@pytest.fixture
def run(project: Project) -> Run:
    dataset = Dataset.objects.create(project=project, name="cases")
    return Run.objects.create(
        project=project,
        dataset=dataset,
        prompts=[{"name": "greet", "version": 2}],
        endpoints=[{"name": "<b>local</b>"}],
        concurrency=4,
        last_case_id=0,
        total=20,
    )


def visitor(project: Project | None = None, **fields: bool) -> Client:
    """A browser whose user is signed in, as a member of `project` if one is given."""
    user = get_user_model().objects.create_user("ada", password="a long password", **fields)
    if project is not None:
        Membership.objects.create(user=user, project=project, role=Role.VIEWER)
    client = Client()
    client.force_login(user)
    return client


def test_a_member_sees_the_run_and_nothing_inline(run: Run, project: Project) -> None:
    answer = visitor(project).get(f"/live/{run.pk}")
    page = answer.content.decode()
    assert answer.status_code == 200 and f'data-run="{run.pk}"' in page
    assert "greet v2" in page and "&lt;b&gt;local&lt;/b&gt;" in page
    # A policy may forbid inline scripts and styles.
    assert re.findall(r"<script(?![^>]*\bsrc=)|<style|\bstyle=|\bon\w+=", page) == []


def test_a_superuser_sees_every_run(run: Run) -> None:
    assert visitor(is_superuser=True).get(f"/live/{run.pk}").status_code == 200


def test_a_member_of_another_project_sees_none(run: Run, other_project: Project) -> None:
    assert visitor(other_project).get(f"/live/{run.pk}").status_code == 404


def test_nobody_is_sent_to_the_login(run: Run) -> None:
    answer = Client().get(f"/live/{run.pk}")
    assert answer.status_code == 302 and answer.headers["Location"].startswith("/admin/login/")
