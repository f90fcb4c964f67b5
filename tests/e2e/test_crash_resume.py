"""kill -9 in the middle of a run: nothing recorded is lost, nothing is done twice that need not be."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.conf import settings
from django.db import connection
from django.test import override_settings

from autoforge.auth import Actor
from autoforge.models import Project
from evaluations.models import Result, Run
from evaluations.schemas import NewCase, NewRun, PromptRef
from evaluations.services import add_cases, create_dataset, start_run
from prompts.services import create_endpoint, create_prompt
from tests.fake_vendor import FakeVendor, Reply, fake_vendor

pytestmark = pytest.mark.django_db(transaction=True)

CASES = 120
CONCURRENCY = 20
# On a busy machine a worker that lives may be silent for a second, too.
SHORT_SILENCE = {"AUTOFORGE_RUN_SHARD_SILENT": "2"}


@pytest.fixture
def vendor() -> Iterator[FakeVendor]:
    with fake_vendor(Reply(delay_s=0.15)) as vendor:
        yield vendor


@pytest.fixture
def run(project: Project, actor: Actor, vendor: FakeVendor, private_endpoints_allowed: None) -> Run:
    """A run that nobody executes yet."""
    create_prompt(project, name="greet", type="text", template="Say {{ q }}", actor=actor)
    create_endpoint(project, name="fake", provider="openai", model="m", base_url=vendor.base_url)
    cases = [NewCase(vars={"q": f"{project.name} {number}"}) for number in range(CASES)]
    add_cases(create_dataset(project, name="many"), cases)
    new = NewRun(prompts=[PromptRef("greet")], models=["fake"], dataset="many", concurrency=CONCURRENCY)
    with override_settings(RUN_SHARD_CELLS=30):
        return start_run(project, new, actor=actor, enqueue=False)


@contextmanager
def worker(run: Run, **changes: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that drains the run; dead at the end of the block."""
    command = [sys.executable, "-m", "tests.e2e.drain", connection.settings_dict["NAME"], str(run.pk)]
    environment = os.environ | {"AUTOFORGE_RUN_HEARTBEAT": "0.1", "AUTOFORGE_ALLOW_PRIVATE_ENDPOINTS": "1"}
    process = subprocess.Popen(
        [str(part) for part in command], env=environment | changes, cwd=settings.BASE_DIR
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def recorded(run: Run) -> set[Any]:
    return set(Result.objects.filter(run=run).values_list("pk", "case_id"))


def test_a_killed_worker_is_taken_over(run: Run, vendor: FakeVendor) -> None:
    with worker(run) as first:
        vendor.wait_until(lambda vendor: vendor.count >= 3 * CONCURRENCY, timeout_s=30)
        first.kill()
        first.wait()
    before, calls_before = recorded(run), vendor.count
    assert before and calls_before < CASES
    with worker(run) as second:
        assert second.wait(timeout=60) == 0
    run.refresh_from_db()
    assert (run.state, run.done, run.passed) == ("finished", CASES, CASES)
    after = recorded(run)
    assert len(after) == CASES and before <= after
    # With a shared cache only what was in flight is asked again; without one, also what had been
    # answered within the last 100 ms and was not in the database yet.
    repeats = vendor.count - CASES
    assert 0 <= repeats <= CONCURRENCY * (1 if settings.REDIS_URL else 2)
    assert run.workers.count() == 0


def test_the_shards_of_a_stuck_worker_are_taken_over(run: Run, vendor: FakeVendor) -> None:
    with worker(run, **SHORT_SILENCE) as stuck:
        vendor.wait_until(lambda vendor: vendor.count >= CONCURRENCY, timeout_s=30)
        stuck.send_signal(signal.SIGSTOP)
        with worker(run, **SHORT_SILENCE) as second:
            assert second.wait(timeout=60) == 0
        stuck.send_signal(signal.SIGCONT)
        assert stuck.wait(timeout=60) == 0
    run.refresh_from_db()
    assert (run.state, run.done, run.passed, run.errors) == ("finished", CASES, CASES, 0)
    assert len(recorded(run)) == CASES and run.workers.count() == 0


def test_two_workers_share_the_concurrency(run: Run, vendor: FakeVendor) -> None:
    with worker(run) as first, worker(run) as second:
        assert first.wait(timeout=60) == second.wait(timeout=60) == 0
    run.refresh_from_db()
    assert (run.state, run.done, vendor.count) == ("finished", CASES, CASES)
    assert vendor.max_in_flight <= CONCURRENCY
