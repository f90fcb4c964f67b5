"""The project's and the installation's numbers: who may read which, and that they are right."""

import asyncio

import pytest
from django.core.cache import caches
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
    before = installation_summary()["http"]
    api.get("/api/v1/prompts").expect(200)
    api.get("/api/v1/prompts/none-such").expect(404)
    http = installation_summary()["http"]
    assert http["requests"] == before["requests"] + 2
    assert http["responses"]["404"] == before["responses"].get("404", 0) + 1
    assert 0 < http["latency_ms"]["p50"] <= http["latency_ms"]["p99"]
    counts = [sum(bucket["count"] for bucket in each["latency_buckets"]) for each in (before, http)]
    assert counts[1] == counts[0] + 2
    assert http["latency_buckets"][-1]["le_ms"] is None


def test_those_who_watch_are_not_those_who_wait(nobody):
    before = installation_summary()["http"]
    nobody.get("/health/live").expect(200)
    http = installation_summary()["http"]
    assert http["requests"] == before["requests"] + 1
    assert http["latency_buckets"] == before["latency_buckets"]


@pytest.mark.parametrize(
    ("part", "names"),
    [
        ("http", {"requests", "latency_ms", "latency_buckets", "responses", "timeouts"}),
        ("models", {"calls", "tokens", "cost_usd", "saved_usd", "cache"}),
        ("runs", {"ended", "results", "parallel_efficiency"}),
        ("websockets", {"connections", "capacity", "sent", "dropped", "outbox"}),
        ("pool", {"in_use", "idle", "overflow", "wait_ms"}),
        ("redis", {"up", "used_memory_bytes", "hit_rate", "clients"}),
        ("processes", {"resident_bytes", "limit_bytes", "cpu_seconds", "loop_lag_ms", "by_process"}),
    ],
)
def test_the_dashboard_finds_what_it_shows(part, names):
    assert names <= set(installation_summary()[part])


def test_each_named_cache_counts_its_hits_and_misses(db):
    before = installation_summary()["caches"].get("user_sessions", {"hits": 0, "misses": 0})
    caches["user_sessions"].set("known", {"a": 1})
    assert caches["user_sessions"].get("known") == {"a": 1}
    assert caches["user_sessions"].get("unknown") is None
    after = installation_summary()["caches"]["user_sessions"]
    assert (after["hits"] - before["hits"], after["misses"] - before["misses"]) == (1, 1)


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
