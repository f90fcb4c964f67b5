"""Idempotency-Key: `answer_once` and `answer_once_async` around a view that counts its work."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from datetime import datetime, timedelta
from threading import Event
from typing import Any

import pytest
from django.db import connection, connections, transaction
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory
from django.utils import timezone

from autoforge.db.threads import in_db_thread
from autoforge.errors import Conflict, InvalidInput
from autoforge.idempotency import ABANDONED_AFTER, answer_once, answer_once_async
from autoforge.models import IdempotentRequest, Project


def request(key: str | None = "k1", body: bytes = b"{}", path: str = "/api/v1/runs") -> HttpRequest:
    headers = {"Idempotency-Key": key} if key else {}
    return RequestFactory().post(path, body, content_type="application/json", headers=headers)


class Work:
    """Answers with how often it was done."""

    def __init__(self, status: int = 201) -> None:
        self.done = 0
        self.status = status

    def __call__(self) -> HttpResponse:
        self.done += 1
        return HttpResponse(b'{"done": %d}' % self.done, status=self.status, content_type="application/json")


def test_the_first_answer_is_given_again(project: Project) -> None:
    work = Work()
    first, second = (answer_once(request(), project, work) for _ in range(2))
    assert work.done == 1
    assert (second.status_code, second.content) == (201, first.content)
    assert second.headers["Idempotent-Replayed"] == "true"
    assert "Idempotent-Replayed" not in first.headers


def test_without_a_key_everything_is_done(project: Project) -> None:
    work = Work()
    for _ in range(2):
        answer_once(request(None), project, work)
    assert work.done == 2
    assert not IdempotentRequest.objects.exists()


@pytest.mark.parametrize("other", [request(body=b'{"a": 1}'), request(path="/api/v1/other")])
def test_another_request_under_the_key_conflicts(project: Project, other: HttpRequest) -> None:
    answer_once(request(), project, Work())
    with pytest.raises(Conflict, match="another request"):
        answer_once(other, project, Work())


def test_projects_have_keys_of_their_own(project: Project, other_project: Project) -> None:
    work = Work()
    answer_once(request(), project, work)
    answer_once(request(), other_project, work)
    assert work.done == 2


def test_a_refusal_is_not_kept(project: Project) -> None:
    refused, work = Work(status=422), Work()
    answer_once(request(), project, refused)
    answer_once(request(body=b"mended"), project, work)
    assert (refused.done, work.done) == (1, 1)


def test_a_failure_gives_the_key_free(project: Project) -> None:
    def fail() -> HttpResponse:
        raise InvalidInput("no")

    with pytest.raises(InvalidInput):
        answer_once(request(), project, fail)
    assert answer_once(request(), project, Work()).status_code == 201


def test_while_the_first_is_at_work_the_second_conflicts(project: Project) -> None:
    def ask_again() -> HttpResponse:
        with pytest.raises(Conflict, match="still at work"):
            answer_once(request(), project, Work())
        return HttpResponse()

    answer_once(request(), project, ask_again)


def test_an_answer_is_forgotten_after_a_day(project: Project, other_project: Project) -> None:
    work = Work()
    answer_once(request(), project, work)
    answer_once(request("other"), other_project, work)
    IdempotentRequest.objects.update(created_at=timezone.now() - timedelta(hours=25))
    answer_once(request(), project, work)
    assert work.done == 3
    assert IdempotentRequest.objects.count() == 1  # the others are cleaned up


def test_a_claim_whose_process_died_is_given_up(project: Project) -> None:
    def die() -> HttpResponse:
        raise SystemExit

    with pytest.raises(SystemExit):
        answer_once(request(), project, die)
    answer_once(request(), project, Work())
    IdempotentRequest.objects.update(status=None)
    with pytest.raises(Conflict, match="still at work"):
        answer_once(request(), project, Work())
    IdempotentRequest.objects.update(created_at=timezone.now() - ABANDONED_AFTER)
    assert answer_once(request(), project, Work()).status_code == 201


def test_an_answer_whose_claim_was_given_up_still_arrives(project: Project) -> None:
    work = Work()

    def slow() -> HttpResponse:
        IdempotentRequest.objects.all().delete()
        return work()

    assert answer_once(request(), project, slow).status_code == 201


def test_a_long_key_is_refused(project: Project) -> None:
    with pytest.raises(InvalidInput, match="at most 200"):
        answer_once(request("k" * 201), project, Work())


@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif(connection.vendor == "sqlite", reason="the test database has no concurrent writers")
def test_of_many_at_the_same_moment_one_is_carried_out(project: Project) -> None:
    work, others_done = Work(), Event()

    def slow() -> HttpResponse:
        others_done.wait(10)
        return work()

    def ask(_: int) -> Any:
        try:
            return answer_once(request(), project, slow).status_code
        except Conflict:
            return 409
        finally:
            connections.close_all()

    with ThreadPoolExecutor(4) as pool:
        finished = as_completed([pool.submit(ask, number) for number in range(4)])
        assert [next(finished).result() for _ in range(3)] == [409] * 3
        others_done.set()
        assert next(finished).result() == 201
    assert work.done == 1


async def nothing() -> HttpResponse:
    return HttpResponse()


@pytest.mark.django_db(transaction=True)
async def test_a_claim_at_work_for_long_is_not_given_up(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autoforge.idempotency.RENEWED_EVERY_S", 0.05)
    work, long_ago = Work(), timezone.now() - ABANDONED_AFTER

    async def slow() -> HttpResponse:
        await in_db_thread(IdempotentRequest.objects.update)(created_at=long_ago)
        await in_db_thread(wait_for_renewal)(long_ago)
        with pytest.raises(Conflict, match="still at work"):
            await answer_once_async(request(), project, nothing)
        return work()

    assert (await answer_once_async(request(), project, slow)).status_code == 201
    answered_at = (await IdempotentRequest.objects.aget()).created_at
    assert (await answer_once_async(request(), project, slow)).headers["Idempotent-Replayed"] == "true"
    await asyncio.sleep(0.2)
    assert (await IdempotentRequest.objects.aget()).created_at == answered_at


def wait_for_renewal(of: datetime) -> None:
    deadline = time.monotonic() + 10
    while IdempotentRequest.objects.get().created_at == of:
        assert time.monotonic() < deadline, "it is not renewed"
        time.sleep(0.02)


@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif(connection.vendor == "sqlite", reason="it has no locks of rows to wait for")
async def test_a_caller_that_leaves_at_once_leaves_no_claim(project: Project) -> None:
    """It leaves while its claim waits for another's, which is then rolled back."""
    claimed, may_go = Event(), Event()
    other = asyncio.create_task(in_db_thread(claim_until)(project, claimed, may_go))
    await asyncio.to_thread(claimed.wait, 10)
    asked = asyncio.create_task(answer_once_async(request(), project, nothing))
    await in_db_thread(until)(IS_WAITING)
    asked.cancel()
    await asyncio.sleep(0)
    may_go.set()
    with pytest.raises(asyncio.CancelledError):
        await asked
    await other
    await in_db_thread(until)(IS_QUIET)
    assert not await IdempotentRequest.objects.aexists()


def claim_until(project: Project, claimed: Event, may_go: Event) -> None:
    with transaction.atomic():
        IdempotentRequest.objects.create(project=project, key="k1", fingerprint="")
        claimed.set()
        may_go.wait(20)
        transaction.set_rollback(True)


OTHERS = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
IS_WAITING = f"SELECT count(*) = 1 {OTHERS} AND wait_event_type = 'Lock'"
IS_QUIET = f"SELECT count(*) = 0 {OTHERS} AND state <> 'idle'"


def until(question: str) -> None:
    """Wait until PostgreSQL says yes."""
    deadline = time.monotonic() + 10
    is_so = False
    while not is_so:
        assert time.monotonic() < deadline, question
        with connection.cursor() as cursor:
            cursor.execute(question)
            is_so = cursor.fetchone()[0]
