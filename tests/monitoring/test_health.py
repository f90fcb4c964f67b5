"""Health and metrics: what a load balancer and a Prometheus see."""

from django.test import Client
from django.test.utils import override_settings


def test_live_answers_without_any_service():
    answer = Client().get("/health/live")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


def test_ready_names_each_component(db):
    answer = Client().get("/health/ready")
    assert answer.status_code == 200
    assert answer.json()["components"]["database"]["is_ok"] is True


@override_settings(REDIS_URL="redis://127.0.0.1:1/0")
def test_ready_is_503_and_names_what_is_down(db):
    answer = Client().get("/health/ready")
    assert answer.status_code == 503
    redis = answer.json()["components"]["redis"]
    assert redis["is_ok"] is False
    assert redis["detail"] == "ConnectionError"


def test_a_local_scraper_reads_metrics_without_a_token(db):
    Client().get("/health/live")
    answer = Client().get("/metrics")
    assert answer.status_code == 200
    assert b'autoforge_http_responses_total{method="GET",status="200",view="health-live"}' in answer.content


def test_a_proxied_or_foreign_caller_reads_no_metrics():
    assert Client().get("/metrics", headers={"X-Forwarded-For": "127.0.0.1"}).status_code == 403
    foreign = Client(REMOTE_ADDR="203.0.113.9").get("/metrics")
    assert foreign.status_code == 403
    assert "AUTOFORGE_METRICS_TOKEN" in foreign.json()["detail"]


@override_settings(METRICS_TOKEN="scrape-me")
def test_with_a_token_set_only_its_bearer_reads_metrics():
    assert Client().get("/metrics").status_code == 401
    assert Client().get("/metrics", headers={"Authorization": "Bearer wrong"}).status_code == 401
    right = Client(REMOTE_ADDR="203.0.113.9").get("/metrics", headers={"Authorization": "Bearer scrape-me"})
    assert right.status_code == 200
