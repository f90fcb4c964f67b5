"""Server processes on a database of their own, shared by all tests of a session."""

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.test import override_settings

from autoforge.local_services import ServiceError, local_services
from autoforge.models import Project
from realtime import hub
from realtime.hub import Hub
from tests.realtime.clients import ROOT, WebProcess
from tests.realtime.following import OUTBOX, Topic

# Small bounds, so that tests reach them; the database is a file, whatever the other tests use.
SMALL_BOUNDS = {
    "AUTOFORGE_WS_OUTBOX": "16",
    "AUTOFORGE_WS_MAX_FRAME_KB": "8",
    "AUTOFORGE_WS_MAX_CONNECTIONS": "12",
    "DATABASE_URL": "",
    "DEBUG": "1",
}


@pytest.fixture(scope="session")
def var_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("realtime")


@pytest.fixture(scope="session")
def world(var_dir: Path) -> dict[str, Any]:
    """Two projects with keys, runs, endpoints and a session: their ids and secrets by name."""
    filled = subprocess.run(
        [sys.executable, "-m", "tests.realtime.populate"],
        cwd=ROOT,
        env=os.environ | SMALL_BOUNDS | {"AUTOFORGE_VAR_DIR": str(var_dir)},
        stdout=subprocess.PIPE,
        check=True,
    )
    return json.loads(filled.stdout)


def web_process(
    server: str, var_dir: Path, world: dict[str, Any], name: str, **environment: str
) -> Iterator[WebProcess]:
    bounds = SMALL_BOUNDS | {"AUTOFORGE_VAR_DIR": str(var_dir)} | environment
    process = WebProcess(server, bounds, world, var_dir / f"{name}.log")
    try:
        yield process.start()
    finally:
        process.stop()


@pytest.fixture(scope="session", params=["uvicorn", "daphne"])
def server(request: pytest.FixtureRequest, var_dir: Path, world: dict[str, Any]) -> Iterator[WebProcess]:
    """One process without Redis, once with each ASGI server."""
    yield from web_process(request.param, var_dir, world, request.param, REDIS_URL="")


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """The Redis of the test run, else one of our own."""
    if settings.REDIS_URL:
        yield settings.REDIS_URL
        return
    try:
        with local_services(postgres=False) as urls:
            yield urls["REDIS_URL"]
    except ServiceError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def pair(var_dir: Path, world: dict[str, Any], redis_url: str) -> Iterator[tuple[WebProcess, WebProcess]]:
    """Two processes that share a Redis."""
    first = web_process("uvicorn", var_dir, world, "first", REDIS_URL=redis_url)
    second = web_process("daphne", var_dir, world, "second", REDIS_URL=redis_url)
    try:
        yield next(first), next(second)
    finally:
        first.close()
        second.close()


@pytest.fixture
async def the_hub() -> AsyncIterator[Hub]:
    with override_settings(REDIS_URL="", WS_OUTBOX_FRAMES=OUTBOX):
        yield hub.current()


@pytest.fixture
def topic(project: Project) -> Topic:
    return Topic(project)
