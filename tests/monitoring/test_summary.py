"""The project's and the installation's numbers: who may read which, and that they are right."""

import asyncio

import pytest
from prometheus_client import REGISTRY

from autoforge.auth import Actor
from evaluations.models import Dataset, Run, RunState
from monitoring.summary import installation_summary
from monitoring.system import sampler, watch_loop


@pytest.fixture
def runs(project):
    dataset = Dataset.objects.create(project=project, name="d")
    shared = {
        "project": project,
        "dataset": dataset,
        "prompts": [],
        "endpoints": [],
        "concurrency": 1,
        "last_case_id": 1,
        "total": 10,
        "created_by": "test",
    }
    Run.objects.create(
        **shared, state=RunState.FINISHED, done=10, passed=7, failed=2, errors=1, cache_hits=5, cost_usd="0.5"
    )
    Run.objects.create(**shared, state=RunState.CANCELLED, done=2, passed=2, cost_usd="0.25", saved_usd="0.1")


def test_a_project_reads_its_own_numbers(viewer, runs, django_assert_num_queries):
    viewer.get("/api/v1/metrics/summary")
    with django_assert_num_queries(1):
        summary = viewer.get("/api/v1/metrics/summary").expect(200)
    assert summary == {
        "runs": {"finished": 1, "cancelled": 1},
        "cells": 12,
        "passed": 9,
        "failed": 2,
        "errors": 1,
        "cache_hits": 5,
        "cache_hit_rate": pytest.approx(5 / 12),
        "cost_usd": 0.75,
        "saved_usd": 0.1,
    }


def test_a_stranger_reads_only_their_own(stranger, nobody, runs):
    assert stranger.get("/api/v1/metrics/summary").expect(200)["cells"] == 0
    nobody.get("/api/v1/metrics/summary").expect(401)


def test_the_installation_counts_requests_and_their_latency(api):
    before = installation_summary()["http"]["requests"]
    api.get("/api/v1/prompts").expect(200)
    http = installation_summary()["http"]
    assert http["requests"] > before
    assert http["latency_ms"]["p50"] > 0
    assert http["responses"]["200"] >= 1


async def test_the_process_is_sampled_beside_the_work():
    sampler.start("test")
    await watch_loop()
    for _ in range(600):
        await asyncio.sleep(0.05)
        if REGISTRY.get_sample_value("autoforge_event_loop_lag_seconds_count"):
            break
    processes = installation_summary()["processes"]
    assert processes["resident_bytes"] > 10_000_000
    assert processes["loop_lag_ms"]["p99"] is not None


def test_only_staff_may_follow_the_metrics_topic(actor: Actor):
    from autoforge import asgi  # the composition root registers the source
    from realtime import topics

    assert asgi.application
    topic = topics.find("metrics", actor)
    assert topic is not None
    assert topic.is_for_staff
