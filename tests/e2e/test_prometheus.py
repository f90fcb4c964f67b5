"""Dashboards, rules and alerts against a real Prometheus that scrapes a loaded installation."""

import json
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import BASE_DIR, Installation, installed
from tests.e2e.metrics_load import SETTINGS, Load
from tests.e2e.prometheus import FILES, PROMETHEUS, PROMTOOL, Prometheus, scraping
from tests.e2e.test_serve import wait_until
from tests.fake_vendor import Reply, fake_vendor

pytestmark = [
    pytest.mark.skipif(not (PROMETHEUS and PROMTOOL), reason="needs prometheus and promtool on the path"),
    pytest.mark.timeout(300),
]

PATIENCE_S = 150
_VARIABLES = {"$__rate_interval": "1m", "$__range": "5m"}
_SELECTOR = re.compile(r"\b(?:autoforge[a-z0-9_:]+|up)\b(?:\{[^}]*\})?")
_THRESHOLD = re.compile(r"\s(?:>|<|==)\s[\d.]+")


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Installation, Prometheus, Load]]:
    """An installation of two web processes, a worker and beat, under the eyes of a Prometheus."""
    folder = tmp_path_factory.mktemp("prometheus")
    with pytest.MonkeyPatch.context() as patch, fake_vendor(Reply(delay_s=0.02)) as vendor:
        for name, value in SETTINGS.items():
            patch.setenv(name, value)
        with (
            installed(folder / "var", "serve", "--web", "2", "--workers", "1") as server,
            scraping(server, folder / "prometheus") as prometheus,
        ):
            yield server, prometheus, Load(server, vendor)


def panel_expressions() -> dict[str, str]:
    """PromQL by where it stands, variables replaced."""
    found = {}
    for path in sorted((BASE_DIR / "monitoring" / "grafana").glob("*.json")):
        board = json.loads(path.read_text())
        for panel in board["panels"]:
            for target in panel.get("targets", []):
                expression = target["expr"]
                for name, value in _VARIABLES.items():
                    expression = expression.replace(name, value)
                found[f"{path.name}: {panel['title']}: {target['legendFormat']}"] = expression
    return found


def rule_expressions(prometheus: Prometheus) -> dict[str, str]:
    """Of recording rules as they are; of alerts without the thresholds that a healthy system keeps."""
    return {rule["name"]: _THRESHOLD.sub("", rule["query"]) for rule in prometheus.rules()}


def selectors_in(expressions: dict[str, str]) -> dict[str, str]:
    """Each selection of series by itself: `or vector(0)` and `absent` hide what does not exist."""
    return {
        f"{place}: {selector}": selector
        for place, expression in expressions.items()
        for selector in _SELECTOR.findall(expression)
    }


def test_every_panel_and_rule_has_data(loaded):
    _, prometheus, load = loaded
    expressions = panel_expressions() | rule_expressions(prometheus)
    empty = expressions | selectors_in(expressions)
    assert len(empty) > 300
    deadline = time.monotonic() + PATIENCE_S
    while empty and time.monotonic() < deadline:
        load.go_round()
        empty = {place: query for place, query in empty.items() if not prometheus.values(query)}
    assert empty == {}


def test_all_processes_are_counted_once_and_the_dead_no_more(loaded):
    server, prometheus, load = loaded
    load.go_round()
    kinds = "count by (kind) (autoforge_process_resident_memory_bytes)"
    wait_until(lambda: sorted(prometheus.values(kinds)) == [1, 1, 2])
    answers = "sum(autoforge_http_responses_total)"
    before = prometheus.values(answers)[0]
    # Beat has looked at Redis for all: somebody else does when it is gone.
    for victim in (server.processes("process web")[0], server.processes("process beat")[0]):
        victim.kill()
        victim.wait(10)
    wait_until(lambda: sorted(prometheus.values(kinds)) == [1, 1, 2], timeout_s=60)
    wait_until(lambda: prometheus.values("autoforge_redis_up") == [1], timeout_s=60)
    assert prometheus.values(answers)[0] >= before


def test_the_files_are_right(tmp_path: Path):
    def promtool(*arguments: str) -> None:
        done = subprocess.run([PROMTOOL, *arguments], cwd=FILES, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    promtool("check", "config", "prometheus.yml")
    promtool("check", "rules", "rules.yml", "alerts.yml")
    promtool("test", "rules", "alerts_test.yml")
