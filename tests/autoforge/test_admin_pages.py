"""Every page of the admin, whoever adds one: a stranger sees nothing of ours, who is no staff sees none."""

from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth import get_user_model
from django.test import Client
from django.urls import NoReverseMatch, reverse

from autoforge.auth import Actor
from autoforge.models import ApiKey, Membership, Project, Role
from autoforge.services import create_api_key
from evaluations.models import Case, Dataset, Result, Run
from prompts.models import ModelEndpoint, Prompt
from prompts.services import create_endpoint, create_prompt
from tests.prompts.test_admin import sign_in

# Whatever we have is called this.
OURS = "zeppelin"


@pytest.fixture
def ours(db: None) -> Project:
    """A project with one of everything that has a page."""
    project = Project.objects.create(name=OURS)
    create_prompt(project, name=OURS, type="text", template=OURS, labels=[OURS], actor=Actor.system(project))
    create_endpoint(project, name=OURS, provider="simulated")
    create_api_key(project, name=OURS, role=Role.VIEWER)
    dataset = Dataset.objects.create(project=project, name=OURS, description=OURS, case_count=1)
    case = Case.objects.create(dataset=dataset, vars={"q": OURS}, expected=OURS)
    run = Run.objects.create(
        project=project,
        dataset=dataset,
        name=OURS,
        prompts=[{"name": OURS, "version": 1, "type": "text", "template": OURS}],
        endpoints=[{"name": OURS, "provider": OURS}],
        concurrency=1,
        last_case_id=case.pk,
        total=1,
        done=1,
        passed=1,
        cost_usd=1,
        created_by=OURS,
    )
    Result.objects.create(run=run, case=case, column=0, state="passed", output=OURS)
    return project


def pages(model: Any) -> Iterator[str]:
    """The addresses of everything that the admin has for a model."""
    name = f"admin:{model._meta.app_label}_{model._meta.model_name}"
    yield reverse(f"{name}_changelist")
    yield reverse(f"{name}_add")
    own = [url.name for url in admin.site._registry[model].get_urls() if url.name]
    for row in model._default_manager.all()[:3]:
        for url in own:
            try:
                yield reverse(f"admin:{url}", args=[row.pk])
            except NoReverseMatch:
                continue


def all_pages() -> list[str]:
    return [reverse("admin:index"), *(page for model in admin.site._registry for page in pages(model))]


def test_a_stranger_sees_nothing_of_ours(ours: Project, other_project: Project) -> None:
    for client in (sign_in("eve", other_project, Role.OWNER), sign_in("nobody")):
        for page in all_pages():
            for response in (client.get(page), client.post(page)):
                assert OURS not in b"".join(response).decode(), page
                assert response.status_code < 500, page
    # No POST of a stranger has changed anything.
    kept = (Prompt, ModelEndpoint, ApiKey, Dataset, Case, Run, Result)
    assert [model._default_manager.count() for model in kept] == [1] * len(kept)
    assert not ApiKey.objects.exclude(revoked_at=None).exists()


def test_a_member_sees_it(ours: Project) -> None:
    olga = sign_in("olga", ours, Role.OWNER)
    bodies = {page: b"".join(olga.get(page)).decode() for page in all_pages()}
    assert sum(OURS in body for body in bodies.values()) >= 15, bodies.keys()


def test_who_is_no_staff_sees_no_page(ours: Project) -> None:
    member = get_user_model().objects.create_user("mia", password="a long password")
    Membership.objects.create(project=ours, user=member, role=Role.OWNER)
    signed_in, anonymous = Client(), Client()
    signed_in.force_login(member)
    for page in all_pages():
        for client in (signed_in, anonymous):
            response = client.get(page)
            assert response.status_code == 302, page
            assert response.headers["Location"].startswith("/admin/login/"), page
