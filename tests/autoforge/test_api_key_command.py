"""`manage.py create_api_key`."""

import json
from decimal import Decimal
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from autoforge.models import ApiKey, Project
from tests.conftest import ApiClient

pytestmark = pytest.mark.django_db


def run(*arguments: str) -> str:
    output = StringIO()
    call_command("create_api_key", *arguments, stdout=output)
    return output.getvalue()


def made(*arguments: str) -> dict[str, Any]:
    return json.loads(run("--json", *arguments))


def test_json_is_one_object_with_a_key_that_works() -> None:
    key = made("--project", "fresh", "--role", "editor")
    assert key.keys() == {"public", "secret", "role", "project"}
    assert (key["role"], key["project"]) == ("editor", "fresh")
    api = ApiClient(key["secret"])
    api.post("/api/v1/prompts", {"name": "p", "type": "text", "template": "x"}).expect(201)


def test_people_read_the_same_and_that_the_secret_comes_once() -> None:
    text = run("--project", "fresh", "--name", "laptop")
    assert "af_pk_" in text and "af_sk_" in text
    assert "this once" in text
    assert ApiKey.objects.get().name == "laptop"


def test_the_rate_limit_can_be_lifted() -> None:
    made("--project", "fresh", "--rate-limit", "0")
    assert ApiKey.objects.get().rate_limit_per_min == 0


def test_a_budget_is_dollars_a_month() -> None:
    made("--project", "fresh", "--budget-usd", "12.5")
    assert ApiKey.objects.get().budget_usd == Decimal("12.5")


def test_an_existing_project_is_used() -> None:
    made("--project", "fresh")
    made("--project", "fresh", "--role", "viewer")
    assert Project.objects.count() == 1
    assert sorted(ApiKey.objects.values_list("role", flat=True)) == ["editor", "viewer"]


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--project", "fresh", "--role", "king"],
        ["--project", "no spaces"],
        ["--project", "fresh", "--rate-limit", "-1"],
        ["--project", "fresh", "--budget-usd", "-1"],
        ["--project", "fresh", "--budget-usd", "NaN"],
        ["--project", "fresh", "--budget-usd", "much"],
    ],
)
def test_nonsense_is_refused_and_makes_nothing(arguments: list[str]) -> None:
    with pytest.raises(CommandError):
        run(*arguments)
    assert not ApiKey.objects.exists()
    assert not Project.objects.exists()
