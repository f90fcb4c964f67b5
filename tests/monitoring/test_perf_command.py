"""`manage.py perf` as an operator calls it, against a server that really runs."""

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from django.core.management import CommandError, call_command
from django.test.utils import override_settings
from rich.console import Console

from monitoring.perf.printing import print_summary
from monitoring.perf.report import Figure, Report
from tests.e2e import conftest as e2e

running = e2e.running


def perf(var: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command joins the server through var/serve.env alone."""
    unset = ("DATABASE_URL", "REDIS_URL", "DEBUG", "SECRET_KEY", "ALLOWED_HOSTS", "PORT")
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    return subprocess.run(
        [sys.executable, "manage.py", "perf", *arguments],
        cwd=e2e.BASE_DIR,
        env=environment | {"AUTOFORGE_VAR_DIR": str(var), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )


def read(path: Path) -> Report:
    return msgspec.json.decode(path.read_bytes(), type=Report)


def test_it_measures_a_running_server_and_judges_it_by_a_baseline(running, tmp_path):
    out, baseline = tmp_path / "out" / "http.json", tmp_path / "baseline.json"
    impossible = Figure(name="rate", value=1e6, unit="req/s", better="higher", noise=0.0)
    baseline.write_bytes(msgspec.json.encode(Report(command="http", figures=[impossible])))
    answer = perf(
        running.var,
        *("http", "--rate", "40", "--duration", "1", "--prompts", "10", "--no-search"),
        *("--json", str(out), "--baseline", str(baseline)),
    )
    # The key that it made has ended with it.
    assert "af_sk_" not in answer.stdout + answer.stderr
    assert answer.returncode == 1
    assert "rate regressed" in answer.stderr
    report = read(out)
    assert {row.kind for row in report.latencies} == {"read", "result", "render", "write", "total"}
    assert [row.count for row in report.latencies if row.kind == "total"] == [40]
    assert not any(row.errors for row in report.latencies)
    assert report.all_figures()["web RSS after"].value > 50
    assert report.cores["web"] > 0


def test_an_evaluation_over_http_asks_the_vendor_once_a_cell(running, tmp_path):
    out = tmp_path / "evaluation.json"
    load = ("--cells", "40", "--concurrency", "10", "--latency-ms", "5", "--repeats", "1")
    answer = perf(running.var, "evaluation", "--vendor", *load, "--json", str(out))
    assert out.exists(), answer.stderr
    figures = read(out).all_figures()
    assert figures["vendor calls beyond one a cell"].value == 0
    assert figures["hit rate of the same cells"].value == 1.0
    assert 0 < figures["parallel efficiency"].value < 1


def test_growth_is_measured_over_sizes(running, tmp_path):
    out = tmp_path / "growth.json"
    load = ("--cells", "20", "--prompts", "2", "--subscribers", "4", "--steps", "1", "2", "--requests", "2")
    answer = perf(running.var, "growth", *load, "--json", str(out))
    assert out.exists(), answer.stderr
    sizes = {"run: 20 cells", "run: 40 cells", "prompt by label: 4 prompts", "page of 20 results: 40 results"}
    assert sizes <= {name for name, each in read(out).all_figures().items() if each.value > 0}


def test_the_gateway_is_held_against_its_vendor(running, tmp_path):
    out = tmp_path / "gateway.json"
    load = ("--rate", "40", "--fast-rate", "80", "--duration", "0.5", "--latency-ms", "0", "--calls", "40")
    answer = perf(running.var, "gateway", *load, "--json", str(out))
    assert out.exists(), answer.stderr
    report = read(out)
    figures = report.all_figures()
    assert figures["vendor calls for cached answers"].value == 0
    assert not [name for name, figure in figures.items() if name.startswith("errors") and figure.value]
    for rate in ("40", "80"):
        for kind in ("whole", "stream"):
            label = f"{kind}, 0 ms, {rate}/s"
            assert figures[f"overhead P95, {label}"].value > 0
            assert figures[f"server CPU, {label}"].value > 0
            assert {label, f"{label}, direct"} <= {row.kind for row in report.latencies}
        assert figures[f"first-token delay P50, stream, 0 ms, {rate}/s"].must == (5 if rate == "40" else None)
    assert figures["web RSS growth over 40 gateway calls"].must == 20


def test_nothing_grows_with_requests_websockets_and_cells(running, tmp_path):
    """The leak test with little load; `manage.py perf memory` has the whole."""
    out = tmp_path / "memory.json"
    load = ("--requests", "1000", "--visits", "150", "--cells", "500")
    answer = perf(running.var, "memory", *load, "--json", str(out))
    assert answer.returncode == 0, answer.stderr
    growth = [name for name, figure in read(out).all_figures().items() if figure.must and "growth" in name]
    assert growth == [
        "web RSS growth over 1,000 requests",
        "web RSS growth over 150 WebSockets",
        "worker RSS growth over 500 cells",
    ]


@pytest.mark.parametrize("problem", ["too few files", ""])
def test_what_cannot_be_measured_stands_in_the_table_and_fails(problem, capsys):
    part = Report(command="websocket", problem=problem, figures=[Figure(name="held", value=1, aim=2)])
    print_summary(Report(command="all", parts=[part]), Console(width=100))
    shown = capsys.readouterr().out
    assert "perf websocket" in shown and "held" in shown
    assert ("NOT MEASURED" in shown) == (problem in shown and bool(problem)) == bool(problem)


def test_without_an_installation_a_sentence_says_what_to_start(tmp_path):
    with override_settings(VAR_DIR=tmp_path), pytest.raises(CommandError, match="start `make serve`"):
        call_command("perf", "http")


def test_a_server_elsewhere_needs_a_key():
    with pytest.raises(CommandError, match="--url needs --key"):
        call_command("perf", "http", url="http://127.0.0.1:1")


def test_a_server_that_does_not_answer_is_named():
    with pytest.raises(CommandError, match=r"http://127.0.0.1:1 does not answer: refused"):
        call_command("perf", "http", url="http://127.0.0.1:1", key="af_sk_x")
