"""kill -9 in the middle of a run: nothing recorded is lost, nothing is done twice that need not be."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

import pytest
from django.conf import settings
from django.db import connection
from django.test import override_settings

from autoforge.auth import Actor
from autoforge.models import Project
from evaluations.models import Result, Run
from evaluations.schemas import NewCase, NewRun, PromptRef
from evaluations.services import add_cases, cancel_run, create_dataset, start_run
from prompts.services import create_endpoint, create_prompt
from tests.fake_vendor import FakeVendor, Reply, fake_vendor

pytestmark = pytest.mark.django_db(transaction=True)

CASES = 120
CONCURRENCY = 20
QUICK = {
    "AUTOFORGE_RUN_HEARTBEAT": "0.1",
    "AUTOFORGE_RUN_SHARD_SILENT": "2",
    "AUTOFORGE_DB_IDLE_TRANSACTION": "2",
}
# Where nobody falls silent: a machine so busy that a worker gets no turn for a moment is no failure.
PATIENT = {"AUTOFORGE_RUN_SHARD_SILENT": "60"}


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
    environment = os.environ | QUICK | {"AUTOFORGE_ALLOW_PRIVATE_ENDPOINTS": "1"} | changes
    process = subprocess.Popen([str(part) for part in command], env=environment, cwd=settings.BASE_DIR)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def recorded(run: Run) -> set[Any]:
    return set(Result.objects.filter(run=run).values_list("pk", "case_id"))


def test_a_killed_worker_is_taken_over(run: Run, vendor: FakeVendor) -> None:
    with worker(run) as first:
        vendor.wait_until(lambda vendor: vendor.count >= 3 * CONCURRENCY, timeout_s=90)
        first.kill()
        first.wait()
    before, calls_before = recorded(run), vendor.count
    assert before and calls_before < CASES
    with worker(run) as second:
        assert second.wait(timeout=120) == 0
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
    with worker(run) as stuck:
        vendor.wait_until(lambda vendor: vendor.count >= CONCURRENCY, timeout_s=90)
        stuck.send_signal(signal.SIGSTOP)
        with worker(run) as second:
            assert second.wait(timeout=120) == 0
        stuck.send_signal(signal.SIGCONT)
        assert stuck.wait(timeout=120) == 0
    run.refresh_from_db()
    assert (run.state, run.done, run.passed, run.errors) == ("finished", CASES, CASES, 0)
    assert len(recorded(run)) == CASES and run.workers.count() == 0


def test_two_workers_share_the_concurrency(run: Run, vendor: FakeVendor) -> None:
    with worker(run, **PATIENT) as first, worker(run, **PATIENT) as second:
        assert first.wait(timeout=120) == second.wait(timeout=120) == 0
    run.refresh_from_db()
    assert (run.state, run.done, vendor.count) == ("finished", CASES, CASES)
    assert vendor.max_in_flight <= CONCURRENCY


def test_two_workers_keep_one_budget(run: Run, vendor: FakeVendor) -> None:
    """A call is billed for 7 tokens at $0.10, and at most about 30 are reserved for it before."""
    prices = {"input_per_mtok": "100000", "output_per_mtok": "100000"}
    frozen = run.endpoints[0] | {"prices": prices, "params": {"max_tokens": 2}}
    Run.objects.filter(pk=run.pk).update(endpoints=[frozen], budget_usd=30)
    with worker(run, **PATIENT) as first, worker(run, **PATIENT) as second:
        assert first.wait(timeout=120) == second.wait(timeout=120) == 0
    run.refresh_from_db()
    assert run.state == "over_budget" and run.leased_usd == 0
    assert 20 < run.cost_usd == Decimal("0.7") * vendor.count <= 30
    assert run.cost_usd == sum(Result.objects.filter(run=run).values_list("cost_usd", flat=True))


def test_a_cancel_reaches_every_worker(run: Run, vendor: FakeVendor) -> None:
    vendor.default = Reply(delay_s=0.6)
    with worker(run, **PATIENT) as first, worker(run, **PATIENT) as second:
        vendor.wait_until(lambda vendor: vendor.count >= CONCURRENCY, timeout_s=90)
        cancel_run(run)
        assert first.wait(timeout=120) == second.wait(timeout=120) == 0
    run.refresh_from_db()
    # What was in flight has ended and is recorded; 20 calls take 0.6 s, so 4 rounds are more than 2 s.
    assert run.state == "cancelled" and run.done == len(recorded(run)) == vendor.count
    assert vendor.count <= 4 * CONCURRENCY < CASES
