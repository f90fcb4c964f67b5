"""The files for Grafana and Prometheus: what they are made from, and that an operator can read them."""

import json
import re
from itertools import combinations
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from autoforge import asgi
from monitoring import installation
from monitoring.grafana.__main__ import FOLDER, texts

PROMETHEUS = FOLDER.parent / "prometheus"
DOCS = FOLDER.parents[1] / "docs" / "monitoring.md"
BOARDS = ("api", "database-and-cache", "evaluations", "models", "overview", "realtime")


def board(name: str) -> dict:
    return json.loads((FOLDER / f"{name}.json").read_text())


def alerts() -> list[str]:
    return re.findall(r"- alert: (\w+)", (PROMETHEUS / "alerts.yml").read_text())


def test_the_files_are_what_the_boards_say():
    written = {path.name: path.read_text() for path in FOLDER.glob("*.json")}
    assert written == texts(), "run `python -m monitoring.grafana`"
    assert sorted(written) == [f"{name}.json" for name in BOARDS]


@pytest.mark.parametrize("name", BOARDS)
def test_a_dashboard_can_be_imported_anywhere(name):
    document = board(name)
    variables = {each["name"] for each in document["templating"]["list"]}
    used = set(re.findall(r"\$\{(\w+)\}", json.dumps(document)))
    assert used <= variables
    assert "id" not in document
    ids = [panel["id"] for panel in document["panels"]]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("name", BOARDS)
def test_panels_have_a_place_and_are_explained(name):
    panels = board(name)["panels"]
    for panel in panels:
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
        if panel["type"] != "row":
            assert panel["description"].endswith("."), panel["title"]
            assert panel["fieldConfig"]["defaults"]["unit"]
            assert panel["targets"]
    for one, other in combinations([panel["gridPos"] for panel in panels], 2):
        assert not overlap(one, other), (one, other)


def overlap(one: dict, other: dict) -> bool:
    return all(
        one[at] < other[at] + other[size] and other[at] < one[at] + one[size]
        for at, size in (("x", "w"), ("y", "h"))
    )


def test_no_query_looks_at_what_a_user_named():
    allowed = {"view", "method", "status", "handler", "le", "state", "kind", "pid", "provider", "outcome"}
    allowed |= {"direction", "cache", "layer", "policy", "reason", "alias", "instance", "job", "alertstate"}
    allowed |= {"alertname", "code"}
    text = "".join(Path(path).read_text() for path in FOLDER.glob("*.json"))
    matched = re.findall(r"[{,]\s*(\w+)\s*(?:=~|!~|!=|=)\\?\"", text)
    assert set(matched) <= allowed


def test_every_alert_says_what_to_do_and_is_tested_and_documented():
    text = (PROMETHEUS / "alerts.yml").read_text()
    assert len(alerts()) == text.count("summary: ") == text.count("action: ") == text.count("severity: ")
    for place in (PROMETHEUS / "alerts_test.yml", DOCS):
        assert set(alerts()) <= set(re.findall(r"AutoForge\w+", place.read_text())), place


def test_every_metric_is_documented():
    assert asgi.application and installation.look  # with them all that counts is there, Redis apart
    text = DOCS.read_text()
    names = {metric.name for metric in REGISTRY.collect() if metric.name.startswith("autoforge_")}
    assert len(names) > 60
    # django-prometheus declares a few that nobody feeds.
    unused = {name for name in names if name.startswith(("autoforge_django_m", "autoforge_django_cache"))}
    assert {name for name in names - unused if name not in text} == set()
