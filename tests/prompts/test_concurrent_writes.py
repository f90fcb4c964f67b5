"""Several writers of one prompt at the same time."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
from django.db import connection, connections

from autoforge.models import Project, Role
from prompts.models import LabelMove, Prompt, PromptVersion
from tests.conftest import ApiClient, client_of

WRITERS = 4
PROMPT = "/api/v1/prompts/shared"

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(
        connection.vendor == "sqlite", reason="the in-memory test database has no concurrent writers"
    ),
]


def together(project: Project, work: Any) -> list[Any]:
    """What `work(client, number)` returns in WRITERS threads that start at the same moment."""
    barrier = Barrier(WRITERS)

    def run(number: int) -> Any:
        client = client_of(project, Role.EDITOR)
        try:
            barrier.wait()
            return work(client, number)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(WRITERS) as pool:
        return list(pool.map(run, range(WRITERS)))


def create(client: ApiClient, number: int) -> int:
    body = {"name": "shared", "type": "text", "template": f"by {number}"}
    return client.post("/api/v1/prompts", body).response.status_code


def test_each_version_has_its_own_number(project: Project, api: ApiClient) -> None:
    create(api, 99)

    def add(client: ApiClient, writer: int) -> list[int]:
        bodies = [{"template": f"{writer}.{number}"} for number in range(5)]
        return [client.post(f"{PROMPT}/versions", body).expect(201)["version"] for body in bodies]

    numbers = [number for added in together(project, add) for number in added]
    assert sorted(numbers) == list(range(2, 2 + WRITERS * 5))


def test_the_same_content_becomes_one_version(project: Project, api: ApiClient) -> None:
    create(api, 99)
    statuses = together(
        project,
        lambda client, _: client.post(f"{PROMPT}/versions", {"template": "same"}).response.status_code,
    )
    assert sorted(statuses) == [200] * (WRITERS - 1) + [201]
    assert PromptVersion.objects.count() == 2


def test_a_name_goes_to_the_first(project: Project) -> None:
    assert sorted(together(project, create)) == [201] + [409] * (WRITERS - 1)
    assert Prompt.objects.count() == 1


def test_a_label_moves_one_after_the_other(project: Project, api: ApiClient) -> None:
    create(api, 0)
    for number in range(1, WRITERS):
        api.post(f"{PROMPT}/versions", {"template": f"by {number}"}).expect(201)
    together(
        project,
        lambda client, number: client.put(f"{PROMPT}/labels/production", {"version": number + 1}).expect(200),
    )
    moves = list(LabelMove.objects.order_by("pk"))
    assert [move.from_version for move in moves] == [None, *(move.to_version for move in moves[:-1])]
    assert api.get(f"{PROMPT}?label=production").expect(200)["version"] == moves[-1].to_version
