"""The history of the metrics: written once whoever writes, bounded, and read by staff alone."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.test import Client

from autoforge.models import Membership, Project, Role
from monitoring.history import TIERS, record
from monitoring.models import MetricSample
from monitoring.numbers import numbers_of, worst_of
from tests.conftest import ApiClient
from tests.prompts.test_admin import sign_in

URL = "/api/v1/metrics/history"
NOON = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


def remember(resolution_s: int, *numbers: dict[str, float]) -> None:
    """One sample for each of `numbers`, the last one just now."""
    now = int(datetime.now(UTC).timestamp())
    newest = datetime.fromtimestamp(now - now % resolution_s, UTC)
    MetricSample.objects.bulk_create(
        MetricSample(
            resolution_s=resolution_s, at=newest - timedelta(seconds=back * resolution_s), numbers=row
        )
        for back, row in enumerate(reversed(numbers))
    )


@pytest.mark.django_db
def test_every_moment_is_written_once_whoever_writes() -> None:
    assert record(NOON) == 3
    assert record(NOON + timedelta(seconds=9)) == 0
    assert record(NOON + timedelta(seconds=10)) == 1
    assert record(NOON + timedelta(seconds=61)) == 2
    rows = MetricSample.objects.order_by("at", "resolution_s").values_list("resolution_s", "at")
    seconds = [(resolution, int((at - NOON).total_seconds())) for resolution, at in rows]
    assert seconds == [(10, 0), (60, 0), (600, 0), (10, 10), (10, 60), (60, 60)]
    assert MetricSample.objects.first().numbers["http.requests"] >= 0


@pytest.mark.django_db
def test_coarse_samples_keep_the_worst_of_the_fine_ones() -> None:
    for second, in_use in ((10, 1), (20, 27), (30, 2)):
        at, numbers = NOON + timedelta(seconds=second), {"pool.in_use": in_use, "http.requests": second}
        MetricSample.objects.create(resolution_s=10, at=at, numbers=numbers)
    record(NOON + timedelta(seconds=60))
    kept = MetricSample.objects.get(resolution_s=60).numbers
    assert kept["pool.in_use"] == 27
    assert kept["http.requests"] != 30  # a total, not a level: that of now


@pytest.mark.django_db
def test_the_past_is_forgotten() -> None:
    for resolution_s, kept in TIERS.items():
        for age in (kept - timedelta(minutes=20), kept + timedelta(minutes=20)):
            MetricSample.objects.create(resolution_s=resolution_s, at=NOON - age, numbers={})
    record(NOON)
    for resolution_s, kept in TIERS.items():
        oldest = MetricSample.objects.filter(resolution_s=resolution_s).earliest("at").at
        assert NOON - oldest < kept, resolution_s


def test_a_summary_becomes_flat_numbers() -> None:
    summary = {
        "http": {
            "requests": 3,
            "latency_ms": {"p50": 1.5},
            "latency_buckets": [{"le_ms": 2.5, "count": 2}, {"le_ms": None, "count": 1}],
        },
        "redis": {"up": None},
        "processes": {"by_process": [{"pid": 1, "kind": "web", "resident_bytes": n} for n in (5, 9)]},
    }
    assert numbers_of(summary) == {
        "http.requests": 3,
        "http.latency_buckets.2.5": 2,
        "http.latency_buckets.inf": 1,
        "processes.by_process.largest": 9,
    }
    assert worst_of([{"redis.up": 0}, {"redis.up": 1, "models.cost_usd": 2}]) == {
        "redis.up": 0,
        "models.cost_usd": 2,
    }


def test_staff_read_a_range_as_columns(project: Project, django_assert_num_queries: Any) -> None:
    ada = sign_in("ada", project)
    remember(10, {"http.requests": 1}, {"http.requests": 5, "redis.clients": 2})
    ada.get(URL)
    with django_assert_num_queries(3):  # who asks, of which project, and the samples
        history = ada.get(URL).json()
    assert (history["range"], history["step_s"]) == ("1h", 10)
    assert history["numbers"] == {"http.requests": [1, 5], "redis.clients": [None, 2]}
    assert history["at"][1] - history["at"][0] == 10
    assert ada.get(f"{URL}?range=1y").status_code == 422


def test_long_ranges_are_thinned(project: Project) -> None:
    ada = sign_in("ada", project)
    remember(60, *({"http.requests": number, "pool.in_use": number % 7} for number in range(300)))
    history = ada.get(f"{URL}?range=24h").json()
    assert 75 <= len(history["at"]) <= 76
    assert history["numbers"]["http.requests"][-1] == 299
    assert len(ada.get(f"{URL}?range=7d").json()["at"]) == 0


def test_nobody_but_staff_reads_it(project: Project, owner: ApiClient, nobody: ApiClient) -> None:
    nobody.get(URL).expect(401)
    assert "signed-in members of the staff" in owner.get(URL).expect(403)["detail"]
    member = get_user_model().objects.create_user("mia", password="a long password")
    Membership.objects.create(project=project, user=member, role=Role.OWNER)
    client = Client()
    client.force_login(member)
    assert client.get(URL).status_code == 403
