"""Langfuse's clients, of which no line is ours, against SQLite's one process and `make serve`'s shape."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import BASE_DIR, Installation, installed
from tests.e2e.langfuse_clients import CLIENTS, NotInstalled, command_of

# Of the first test, which may have to build the clients' environments.
pytestmark = pytest.mark.timeout(900)
_PATIENCE_S = 120
_SHAPES = {"sqlite": ["run_server"], "serve": ["serve", "--web", "2", "--workers", "1"]}


class Users:
    """A user of each client at work at the same time, each with names of its own."""

    def __init__(self, server: Installation) -> None:
        self.server = server
        environment = os.environ | _keys_of(server)
        self.processes: dict[str, subprocess.Popen[str] | str] = {}
        for client in CLIENTS:
            try:
                command = [*command_of(client), client]
            except NotInstalled as reason:
                self.processes[client] = f"{client} cannot be installed: {reason}"
            else:
                quiet = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
                self.processes[client] = subprocess.Popen(command, env=environment, **quiet)

    def seen_by(self, client: str) -> dict[str, Any]:
        """What the client's script printed; skips the test where it cannot run."""
        process = self.processes[client]
        if isinstance(process, str):
            pytest.skip(process)
        output, errors = process.communicate(timeout=_PATIENCE_S)
        assert process.returncode == 0, errors
        return json.loads(output.splitlines()[-1])

    def close(self) -> None:
        for process in self.processes.values():
            if isinstance(process, subprocess.Popen) and process.poll() is None:
                process.kill()
                process.communicate()


def _keys_of(server: Installation) -> dict[str, str]:
    """The environment by which the clients find the server: on an idle machine all that a user changes."""
    lines = (server.var / "serve.env").read_text().splitlines()
    joined = dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    command = [sys.executable, "manage.py", "create_api_key", "--project", "films", "--json"]
    there = os.environ | {"AUTOFORGE_VAR_DIR": str(server.var)} | joined
    made = subprocess.run(command, cwd=BASE_DIR, env=there, stdout=subprocess.PIPE, check=True)
    key = json.loads(made.stdout)
    server.secret = key["secret"]
    keys = {"LANGFUSE_PUBLIC_KEY": key["public"], "LANGFUSE_SECRET_KEY": key["secret"]}
    addresses = {"LANGFUSE_HOST": server.url, "LANGFUSE_BASE_URL": server.url}
    return keys | addresses | {"LANGFUSE_TIMEOUT": "60"}


@pytest.fixture(scope="module", params=list(_SHAPES))
def users(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Users]:
    var: Path = tmp_path_factory.mktemp(request.param) / "var"
    with installed(var, *_SHAPES[request.param]) as server:
        working = Users(server)
        yield working
        working.close()


def _judged_runs(server: Installation, data: str) -> dict[str, Any]:
    """The runs over a data set by name, once the scores of both have come."""
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline:
        found = server.request("GET", f"/api/v1/runs?dataset={data}")[1]["items"]
        if len(found) == 2 and sum(run["failed"] for run in found) == 1 and all(r["done"] for r in found):
            return {run["name"]: run for run in found}
        time.sleep(0.1)
    raise AssertionError(found)


@pytest.mark.parametrize("client", CLIENTS)
def test_an_unchanged_client_works_with_our_objects(users: Users, client: str) -> None:
    seen, server = users.seen_by(client), users.server
    assert seen["prompt"] == {
        "created": [1, 2],
        "text": "As a {{level}} critic, rate {{ movie }}. Keep {% this %}.",
        "compiled": "As a harsh critic, rate Dune. Keep {% this %}.",
        "labels": ["production"],
        "config": {"temperature": 0},
        "staging": 2,
    }
    assert (seen["cached"], seen["moved"], seen["fallback"]) == (1, 2, "Say hi")
    assert seen["chat"][0] == {"role": "system", "content": "You are Ann."}
    assert (seen["chat"][1]["content"], len(seen["chat"])) == ("Hi", 3)
    assert seen["items"] == [["France", "Paris"], ["Chile", "Santiago"]]
    assert seen["results"] == [2, 2]
    status, prompt = server.request("GET", f"/api/v1/prompts/{client}/movie%20critic")
    assert (status, prompt["version"], prompt["labels"]) == (200, 2, ["production", "staging", "latest"])
    assert prompt["variables"] == ["level", "movie"]
    cases = server.request("GET", f"/api/v1/datasets/{client}/cases")[1]["items"]
    assert [(case["vars"], case["expected"]) for case in cases] == [
        ({"country": "France"}, "Paris"),
        ({"country": "Chile"}, "Santiago"),
    ]
    runs = _judged_runs(server, client)
    first, second = runs["always Paris"], runs["knows all"]
    assert [(run["total"], run["done"], run["passed"]) for run in (first, second)] == [(2, 2, 1), (2, 2, 2)]
    results = server.request("GET", f"/api/v1/runs/{first['id']}/results")[1]["items"]
    assert {result["output"] for result in results} == {"Paris"}
    assert sorted(result["score"] for result in results) == [0.0, 1.0]
    described = server.request("GET", f"/api/public/datasets/{client}/runs/always%20Paris")[1]
    assert (described["description"], described["metadata"]) == ("Of the world", {"team": "films"})
    found = server.request("GET", f"/api/v1/runs/{first['id']}/compare/{second['id']}")[1]
    assert (found["pairs"], found["only_b"], found["both_passed"]) == (2, 1, 1)


@pytest.mark.parametrize("client", CLIENTS[:3])
def test_a_python_client_tells_the_prompt_the_model_and_the_cost(users: Users, client: str) -> None:
    users.seen_by(client)
    run = _judged_runs(users.server, client)["always Paris"]
    column = {"prompt": f"{client}/movie critic", "version": 1, "model": "gpt-test"}
    assert run["columns"] == [column]
    assert run["cost_usd"] == pytest.approx(0.006)
    [share] = run["scores"]
    assert (share["scorer"], share["value"]) == ("share_right", 0.5)


def test_a_batch_as_large_as_sdk_3_makes_them_is_taken(users: Users) -> None:
    bodies = [{"name": "n", "value": 1, "traceId": f"t{n}", "comment": "x" * 990_000} for n in range(3)]
    batch = [{"id": body["traceId"], "type": "score-create", "body": body} for body in bodies]
    status, answer = users.server.request("POST", "/api/public/ingestion", {"batch": batch})
    assert (status, len(answer["successes"])) == (207, 3)


@pytest.mark.parametrize("client", ["langfuse-4", "langfuse-5"])
def test_an_sdk_reads_its_experiments_back(users: Users, client: str) -> None:
    found = users.seen_by(client)["experiments"]
    said = ["Of the world", "films", "Of the world"]
    assert found == {
        "always Paris": {
            "said": said,
            "scores": [["share_right", 0.5]],
            "items": [["Chile", "Paris", 0.0], ["France", "Paris", 1.0]],
        },
        "knows all": {
            "said": said,
            "scores": [["share_right", 1.0]],
            "items": [["Chile", "Santiago", 1.0], ["France", "Paris", 1.0]],
        },
    }
