"""`manage.py sync_turso` against the real sync server: what arrives, what never does, and what mends it."""

import fcntl
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any
from uuid import uuid4

import pytest
import turso.sync
from django.core.management import CommandError, call_command
from django.db import connection

from autoforge.auth import Actor
from autoforge.models import Project
from evaluations import executor
from evaluations.models import Dataset, Result, Run
from evaluations.services import create_dataset, retry_errors
from evaluations.turso.remote import Remote
from prompts.models import ModelEndpoint, Prompt
from prompts.services import move_label
from tests.conftest import ApiClient
from tests.e2e.conftest import BASE_DIR, free_port
from tests.e2e.turso_project import SECRET, Rows, assert_equal, begin, evaluate, fill
from tests.e2e.turso_server import Gateway, TursoServer, gateway
from tests.evaluations.compat.langfuse import conftest as langfuse

pytestmark = pytest.mark.django_db(transaction=True)

TOKEN = "a token that only the gateway knows"
AWKWARD = "it's “quoted”, \\ and 🎈;\n" + "long " * 100_000
SYNC = """
import sys, django
from django.conf import settings
settings.DATABASES["default"]["NAME"] = sys.argv[1]
django.setup()
from django.core.management import ManagementUtility
ManagementUtility(["manage.py", "sync_turso", "--project", "acme"]).execute()
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[TursoServer]:
    server = TursoServer(tmp_path)
    with server.running():
        yield server


@pytest.fixture
def entrance(server: TursoServer) -> Iterator[Gateway]:
    with gateway(server.url, TOKEN) as entrance:
        yield entrance


@pytest.fixture(autouse=True)
def _configured(entrance: Gateway, settings: Any, tmp_path: Path) -> None:
    settings.TURSO_URL, settings.TURSO_TOKEN, settings.TURSO_TIMEOUT_S = entrance.url, TOKEN, 20
    settings.VAR_DIR = tmp_path / "var"


@pytest.fixture
def sync(capsys: Any) -> Callable[..., str]:
    """Runs the command; gives what it has written."""

    def run(project: str = "acme") -> str:
        call_command("sync_turso", project=project)
        return " ".join(capsys.readouterr().out.split())

    return run


@pytest.fixture
def read(server: TursoServer, tmp_path: Path) -> Callable[[str], Rows]:
    """Rows as somebody else sees them, who copies the database anew."""
    copies = iter(range(1_000))

    def query(sql: str) -> Rows:
        path = tmp_path / f"reader-{next(copies)}.db"
        reader = turso.sync.connect(str(path), remote_url=server.url)
        try:
            return [tuple(row) for row in reader.execute(sql).fetchall()]
        finally:
            reader.close()

    return query


def test_everything_arrives_readable_and_then_only_what_is_new(
    project: Project, api: ApiClient, sync: Any, read: Any
) -> None:
    run = fill(project)
    first = sync()
    for part in ("1 prompts", "2 prompt_versions", "1 labels", "1 datasets", "10 cases", "20 results"):
        assert part in first
    assert_equal(read, project)
    shown = api.get(f"/api/v1/runs/{run.pk}/results?sort=id").expect(200)["items"]
    rows = read("SELECT id, prompt, version, model, state, output, scores, cost_usd FROM results ORDER BY id")
    assert [
        (row["id"], row["prompt"], row["version"], row["model"], row["state"], row["output"], row["scores"])
        for row in shown
    ] == [(*row[:6], json.loads(row[6])) for row in rows]
    assert {row[2] for row in rows} == {1, 2} and {row[4] for row in rows} == {"passed", "failed"}
    assert [Decimal(row[7]) for row in rows] == list(
        Result.objects.order_by("pk").values_list("cost_usd", flat=True)
    )
    assert sync() == "acme: nothing has changed"
    evaluate(project)
    second = sync()
    assert "20 results" in second and "1 runs" in second and "cases" not in second
    assert_equal(read, project)


def test_times_amounts_and_templates_are_text_that_says_what_they_are(
    project: Project, sync: Any, read: Any
) -> None:
    run = fill(project)
    Result.objects.filter(run=run).update(output=AWKWARD, cost_usd=Decimal("0.000000120"))
    Run.objects.filter(pk=run.pk).update(seed=2**62, cost_usd=Decimal(12))
    sync()
    ((created, cost, seed, prompts),) = read("SELECT created_at, cost_usd, seed, prompts FROM runs")
    assert created == run.created_at.isoformat(timespec="microseconds")
    assert (cost, seed) == ("12", 2**62)
    assert json.loads(prompts) == run.prompts
    assert read("SELECT DISTINCT cost_usd FROM results") == [("0.00000012",)]
    assert read("SELECT template FROM prompt_versions WHERE version = 1") == [('"Say {{ q }}"',)]
    assert read("SELECT name, version FROM labels") == [("production", 2)]
    assert_equal(read, project)


def test_sums_of_times_survive_the_way(project: Project, sync: Any, read: Any) -> None:
    run = fill(project)
    random = Random(7)
    times = [sum(random.uniform(0, 10.0**exponent) for _ in range(20)) for exponent in range(-9, 10)] * 5
    for run.pk, run.call_ms in ((uuid4(), time) for time in (*times, 0.1 + 0.2, 57.402273528956236)):
        run.save(force_insert=True)
    sync()
    there = dict(read("SELECT id, call_ms FROM runs"))
    assert there == {
        str(pk): pytest.approx(ms, rel=1e-13) for pk, ms in Run.objects.values_list("pk", "call_ms")
    }
    assert sync() == "acme: nothing has changed"


def test_retried_errors_are_replaced(project: Project, sync: Any, read: Any) -> None:
    run = fill(project, settings={"output": "echo", "error_rate": 1.0})
    assert run.errors == 20
    sync()
    assert read("SELECT count(*) FROM results WHERE state = 'error'") == [(20,)]
    ModelEndpoint.objects.update(settings={"output": "echo"})
    Run.objects.update(endpoints=[run.endpoints[0] | {"settings": {"output": "echo"}}])
    retry_errors(run)
    executor.wait_idle(20)
    assert Run.objects.get().errors == 0
    sync()
    assert read("SELECT count(*) FROM results WHERE state = 'error'") == [(0,)]
    assert_equal(read, project)


def test_a_run_under_way_is_followed_to_its_end(project: Project, sync: Any, read: Any) -> None:
    fill(project)
    ModelEndpoint.objects.update(settings={"output": "echo", "latency_ms": 100})
    run = begin(project, enqueue=True, repeats=3, concurrency=4, use_cache=False)
    seen = set()
    while Run.objects.get(pk=run.pk).is_live:
        sync()
        seen.add(read(f"SELECT count(*) FROM results WHERE run_id = '{run.pk}'")[0][0])
    assert executor.wait_idle(20)
    assert any(count < run.total for count in seen)
    sync()
    assert_equal(read, project)


def test_what_comes_late_for_a_run_that_is_executed_elsewhere_arrives(
    project: Project, api: ApiClient, sync: Any, read: Any
) -> None:
    first, second = langfuse.fill(api, count=2)
    tell(api, langfuse.done(first, 1, name="elsewhere", description="Capitals"))
    sync()
    assert read("SELECT score, prompt, model FROM results") == [(None, "elsewhere", "langfuse")]
    for value, comment in ((0.75, "good"), (0.75, "on second thoughts")):  # no counter of the run changes
        api.post(f"{langfuse.PUBLIC}/scores", [langfuse.score(1, value, comment=comment)]).expect(202)
        assert "1 results" in sync()
        ((score, scores),) = read("SELECT score, scores FROM results")
        assert (score, json.loads(scores)[0]["reason"]) == (value, comment)
    call = {"o__type": "generation", "o__model.name": "gpt-test"}
    of_second = langfuse.experiment(second, 32, name="elsewhere")
    tell(api, langfuse.span(2, 3, 32, ms=1, **of_second, **call), langfuse.done(second, 2, name="elsewhere"))
    api.post(f"{langfuse.PUBLIC}/scores", [langfuse.score(2, 1, id="r", datasetRunId="e1")]).expect(202)
    sync()
    assert read("SELECT DISTINCT model FROM results") == [("gpt-test",)]
    ((key, about, scores, verdicts),) = read("SELECT external_id, about, scores, verdicts FROM runs")
    assert (key, json.loads(about), verdicts) == ("e1", {"description": "Capitals"}, 3)
    assert json.loads(scores)[0]["value"] == 1.0
    assert_equal(read, project)
    assert sync() == "acme: nothing has changed"


def tell(api: ApiClient, *spans: dict[str, Any]) -> None:
    body = langfuse.encoded(list(spans)).SerializeToString()
    api.request("POST", langfuse.TRACES, body, content_type="application/x-protobuf").expect(200)


def test_what_is_deleted_or_changed_here_is_so_there(project: Project, sync: Any, read: Any) -> None:
    gone = fill(project)
    evaluate(project)
    sync()
    gone.delete()
    prompt = Prompt.objects.get()
    move_label(prompt, label="production", version=1, actor=Actor.system(project))
    Dataset.objects.update(description="changed")
    create_dataset(project, name="empty")
    said = sync()
    assert "20 results removed" in said and "1 runs removed" in said
    assert read("SELECT version FROM labels") == [(1,)]
    assert read("SELECT name, description FROM datasets ORDER BY id") == [("many", "changed"), ("empty", "")]
    assert_equal(read, project)


def test_two_projects_share_a_database_and_a_renamed_one_takes_its_rows_along(
    project: Project, other_project: Project, sync: Any, read: Any
) -> None:
    fill(project)
    fill(other_project)
    sync("acme")
    assert_equal(read, project)
    sync("rival")
    assert_equal(read, project, other_project)
    Run.objects.filter(project=other_project).delete()
    sync("rival")
    assert_equal(read, project, other_project)
    Project.objects.filter(pk=other_project.pk).update(name="friend")
    sync("friend")
    assert_equal(read, project, other_project)
    assert read("SELECT project FROM sync_state ORDER BY project") == [("acme",), ("friend",)]


def test_no_secret_leaves(project: Project, owner: ApiClient, sync: Any, tmp_path: Path) -> None:
    fill(project)
    evaluate(project)
    sync()
    copies = [*tmp_path.glob("server.db*"), *(tmp_path / "var").rglob("replica.db*")]
    bytes_ = b"".join(path.read_bytes() for path in copies)
    key = owner._headers["Authorization"].removeprefix("Bearer ")
    encrypted = ModelEndpoint.objects.get().encrypted_api_key
    assert b"Please say acme 7" in bytes_ and encrypted
    for secret in (SECRET, encrypted, key, TOKEN):
        assert secret.encode() not in bytes_


@pytest.mark.parametrize("hold_at", [1, 2, 3])
@pytest.mark.parametrize("hold_after", [False, True], ids=["before", "after"])
def test_a_sync_that_was_killed_is_mended_by_the_next(
    hold_at: int, hold_after: bool, project: Project, sync: Any, read: Any, entrance: Gateway, tmp_path: Path
) -> None:
    fill(project)
    entrance.hold_at, entrance.hold_after = hold_at, hold_after
    process = subprocess.Popen(**_command(entrance.url, tmp_path))
    try:
        assert entrance.held.wait(60)
    finally:
        process.kill()
        process.communicate()
    entrance.released.set()
    tables = read("SELECT count(*) FROM sqlite_schema WHERE name = 'sync_state'")
    assert tables == [(int(hold_at > 1 or hold_after),)]
    sync()
    assert_equal(read, project)
    assert sync() == "acme: nothing has changed"


def test_a_sync_that_failed_halfway_says_so_and_is_mended_by_the_next(
    project: Project, sync: Any, read: Any, entrance: Gateway
) -> None:
    fill(project)
    entrance.hold_at = 2
    entrance.released.set()
    with pytest.raises(CommandError, match=r"has not taken all changes, sync again: .*502"):
        sync()
    assert read("SELECT project FROM sync_state WHERE finished_at IS NULL") == [("acme",)]
    assert "20 results" in sync()
    assert_equal(read, project)


def _command(url: str, tmp_path: Path) -> dict[str, Any]:
    environment = os.environ | {
        "DJANGO_SETTINGS_MODULE": "autoforge.settings",
        "AUTOFORGE_TURSO_URL": url,
        "AUTOFORGE_TURSO_TOKEN": TOKEN,
        "AUTOFORGE_VAR_DIR": str(tmp_path / "var"),
    }
    command = [sys.executable, "-c", SYNC, str(connection.settings_dict["NAME"])]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return {"args": command, "cwd": BASE_DIR, "env": environment, "text": True, **pipes}


def test_a_failure_exits_1_with_a_sentence(project: Project, tmp_path: Path) -> None:
    done = subprocess.run(**_command(f"http://127.0.0.1:{free_port()}", tmp_path), check=False, timeout=60)
    assert done.returncode == 1
    assert "The database at AUTOFORGE_TURSO_URL does not answer" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_wrong_token_is_named(project: Project, sync: Any, settings: Any) -> None:
    settings.TURSO_TOKEN = "wrong"
    with pytest.raises(CommandError, match=r"refuses the token in AUTOFORGE_TURSO_TOKEN \(401\)"):
        sync()


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("", "Set AUTOFORGE_TURSO_URL"),
        ("sqlite://x", "must be a host after"),
        ("http://[", "must be a host after"),
    ],
)
def test_a_wrong_address_is_named(
    url: str, sentence: str, project: Project, sync: Any, settings: Any
) -> None:
    settings.TURSO_URL = url
    with pytest.raises(CommandError, match=sentence):
        sync()


def test_a_server_that_never_answers_is_given_up(project: Project, sync: Any, settings: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings.TURSO_URL, settings.TURSO_TIMEOUT_S = f"http://127.0.0.1:{silent.getsockname()[1]}", 0.2
        with pytest.raises(CommandError, match="does not answer: timed out"):
            sync()


def test_an_unknown_project_is_named(project: Project, sync: Any) -> None:
    with pytest.raises(CommandError, match="There is no project 'nobody'"):
        sync("nobody")


@pytest.mark.parametrize(
    ("statement", "sentence"),
    [
        ("UPDATE sync_state SET schema_version = '99'", "tables of version 99"),
        ("UPDATE sync_state SET installation = 'another'", "project 'acme' of another AutoForge"),
        ("DROP TABLE sync_state", "has tables of its own that are called cases, datasets"),
    ],
)
def test_foreign_tables_are_left_alone(
    statement: str, sentence: str, project: Project, sync: Any, read: Any, server: TursoServer
) -> None:
    fill(project)
    sync()
    Remote(server.url, "").query(statement)
    Run.objects.all().delete()
    with pytest.raises(CommandError, match=sentence):
        sync()
    assert read("SELECT count(*) FROM results") == [(20,)]


def test_two_syncs_at_once_do_not_share_a_replica(project: Project, sync: Any, tmp_path: Path) -> None:
    fill(project)
    sync()
    (lock,) = (tmp_path / "var" / "turso").glob("*.lock")
    with lock.open() as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(CommandError, match="Another sync to this database is under way"):
            sync()
    assert sync() == "acme: nothing has changed"


def test_a_database_that_was_emptied_is_filled_again(
    project: Project, sync: Any, tmp_path: Path, settings: Any, read: Any, server: TursoServer
) -> None:
    fill(project)
    other = TursoServer(tmp_path, name="first.db")
    settings.TURSO_URL, settings.TURSO_TOKEN = other.url, ""
    with other.running():
        sync()
    other.name = "second.db"
    with other.running():
        assert "20 results" in sync()
        server.port = other.port
        assert_equal(read, project)


def test_a_damaged_replica_is_replaced(project: Project, sync: Any, tmp_path: Path, read: Any) -> None:
    fill(project)
    sync()
    (replica,) = (tmp_path / "var").rglob("replica.db")
    replica.write_bytes(b"nothing that a database begins with" * 1_000)
    evaluate(project)
    assert "20 results" in sync()
    assert_equal(read, project)
