"""What `deploy/` names exists, what it starts starts, and says when it is ready or why it is not."""

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.conf import settings
from django.core.management import load_command_class
from django.core.management.base import CommandError
from django.urls import reverse

from tests.e2e.conftest import free_port

ROOT = Path(__file__).resolve().parents[2]
FILES = [path for path in (ROOT / "deploy").rglob("*") if path.is_file()]
PAGES = [ROOT / "docs" / "operations.md", ROOT / "docs" / "scaling.md"]
STARTED = re.compile(r"manage\.py (process [^\n\"'`;|&]*|migrate[^\n;,:`&]*|check --[^\n.;`\"]*)")
PRODUCTION = {"DEBUG": "0", "SECRET_KEY": "s" * 50, "ALLOWED_HOSTS": "127.0.0.1", "AUTOFORGE_HTTPS": "1"}


def text_of(*names: str) -> str:
    return "\n".join(path.read_text() for path in FILES if not names or path.name in names)


def test_every_setting_exists() -> None:
    known = set(re.findall(r"^([A-Z_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
    named = set(re.findall(r"AUTOFORGE_[A-Z_]+", text_of() + "".join(page.read_text() for page in PAGES)))
    assert {name for name in named - known if not name.endswith("_")} <= {"AUTOFORGE_HOST"}
    example = re.findall(r"^([A-Z_]+)=", text_of("autoforge.env.example"), re.MULTILINE)
    assert set(example) <= known


def test_every_command_can_be_parsed() -> None:
    found = {line.strip() for line in STARTED.findall(text_of())}
    assert {line.split()[1] for line in found if line.startswith("process")} >= {"web", "worker", "beat"}
    for line in found:
        name, *arguments = shlex.split(line)
        module = "autoforge" if name == "process" else "django.core"
        parser = load_command_class(module, name).create_parser("manage.py", name)
        parser.parse_args(arguments)


def test_the_proxy_lets_through_what_we_judge_ourselves() -> None:
    limits = [
        int(limit) * 2**20 for limit in re.findall(r"client_max_body_size (\d+)m", text_of("autoforge.conf"))
    ]
    assert limits[0] > settings.MAX_BODY_BYTES and limits[1] > settings.MAX_IMPORT_BYTES
    assert limits[2] > max(settings.MAX_TRACES_BYTES, settings.MAX_INGESTION_BYTES)
    imports = re.search(r"location ~ (\S+import\S+) \{", text_of("autoforge.conf"))
    assert imports is not None
    for path in (reverse("admin:evaluations_dataset_import", args=[7]), "/api/v1/datasets/folder/x/import"):
        assert re.fullmatch(imports[1], path)


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Of an installation on SQLite."""
    var = {
        "AUTOFORGE_VAR_DIR": str(tmp_path),
        "DATABASE_URL": "",
        "REDIS_URL": "",
        "AUTOFORGE_EXECUTOR": "inprocess",
    }
    return os.environ | PRODUCTION | var


def manage(environment: dict[str, str], *arguments: str, **changes: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "manage.py", *arguments],
        cwd=ROOT,
        env=environment | changes,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(("changes", "is_fine"), [({}, True), ({"AUTOFORGE_MEMORY_LIMIT_MB": "1"}, False)])
def test_compose_sets_up_tables_and_checks_the_settings(
    environment: dict[str, str], changes: dict[str, str], is_fine: bool
) -> None:
    setup = yaml.safe_load(text_of("compose.yaml"))["services"]["setup"]
    script = [part.replace(".venv/bin/python", shlex.quote(sys.executable)) for part in setup["command"]]
    done = subprocess.run(
        [*setup["entrypoint"], *script],
        check=False,
        cwd=ROOT,
        env=environment | changes,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert (done.returncode == 0) is is_fine, done.stdout
    has_done_all = "Applying autoforge.0001" in done.stdout and "System check identified" in done.stdout
    assert has_done_all is is_fine, done.stdout


def test_a_web_process_tells_when_it_serves(environment: dict[str, str], tmp_path: Path) -> None:
    port, path = free_port(), str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        manager.settimeout(60)
        process = manage(environment, "process", "web", "--bind", f"127.0.0.1:{port}", NOTIFY_SOCKET=path)
        try:
            assert manager.recv(100) == b"READY=1"
            # Whoever checks its health asks it directly, without TLS; everybody else is sent to TLS.
            assert _status(port, "/health/live") == 200
            assert _status(port, "/api/docs") == 301
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=30)
    assert process.returncode == 0


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


def _status(port: int, path: str) -> int:
    opener = urllib.request.build_opener(_NoRedirect)
    try:
        with opener.open(f"http://127.0.0.1:{port}{path}", timeout=10) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


@pytest.mark.parametrize(
    ("arguments", "changes", "sentence"),
    [
        (["process", "web"], {}, "Standard input is no listening socket"),
        (["process", "worker"], {"SECRET_KEY": ""}, "DEBUG is off and SECRET_KEY is not set"),
        (["load_sample", "--project", "a b"], {}, "The project's name 'a b' must have"),
        (["create_api_key", "--project", "a"], {}, "run `manage.py migrate`"),
        (
            ["create_api_key", "--project", "a"],
            {"DATABASE_URL": "postgres://a@127.0.0.1:1/a"},
            "does not answer",
        ),
        (["run_server", "--port", "99999"], {}, "a port is a number between 1 and 65535"),
        (
            ["process", "beat"],
            {"AUTOFORGE_WORKER_THREADS": "many"},
            "AUTOFORGE_WORKER_THREADS must be a whole number",
        ),
    ],
)
def test_what_cannot_start_says_why(
    environment: dict[str, str], arguments: list[str], changes: dict[str, str], sentence: str
) -> None:
    process = manage(environment, *arguments, **changes)
    said = process.communicate(timeout=60)[1]
    assert process.returncode in (1, 2)
    assert sentence in said and "Traceback" not in said


@pytest.mark.parametrize("address", ["8000", ":8000", "127.0.0.1:", "127.0.0.1:99999", "nowhere.invalid:1"])
def test_an_address_that_is_none_is_named(address: str) -> None:
    command = load_command_class("autoforge", "process")
    with pytest.raises(CommandError, match=r"--bind is an address|Cannot listen at"):
        command.handle(kind="web", bind=address, server="uvicorn", name="worker")
