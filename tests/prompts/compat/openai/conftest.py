"""Real server processes in both shapes with a fake vendor behind them, OpenAI's own clients before them."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI

from autoforge.local_services import ServiceError, local_services
from tests.fake_vendor import FakeVendor, Reply, fake_vendor
from tests.realtime.clients import ROOT, WebProcess

Connect = Callable[..., OpenAI]
Ask = Callable[[], dict[str, Any]]

_questions = count()


@pytest.fixture(scope="session")
def running_vendor() -> Iterator[FakeVendor]:
    with fake_vendor() as running:
        yield running


@pytest.fixture
def vendor(running_vendor: FakeVendor) -> Iterator[FakeVendor]:
    """The vendor behind `gpt` and `spare`, as if it had just been started."""
    running_vendor.calls.clear()
    running_vendor.count = running_vendor.aborted = 0
    yield running_vendor
    running_vendor.default = Reply()
    running_vendor._script.clear()


@pytest.fixture(scope="session")
def gateway_on_sqlite(
    tmp_path_factory: pytest.TempPathFactory, running_vendor: FakeVendor
) -> Iterator[WebProcess]:
    with _serving(tmp_path_factory.mktemp("openai"), running_vendor, {}) as process:
        yield process


@pytest.fixture(scope="session")
def gateway_on_services(
    tmp_path_factory: pytest.TempPathFactory, running_vendor: FakeVendor
) -> Iterator[WebProcess]:
    """With a PostgreSQL and a Valkey of our own."""
    try:
        with (
            local_services() as urls,
            _serving(tmp_path_factory.mktemp("openai"), running_vendor, urls) as process,
        ):
            yield process
    except ServiceError as error:
        pytest.skip(str(error))


@pytest.fixture(params=["sqlite", "services"])
def gateway(request: pytest.FixtureRequest) -> WebProcess:
    """With nothing configured, and on PostgreSQL and Valkey. Both stay: files of tests take turns."""
    return request.getfixturevalue(f"gateway_on_{request.param}")


@contextmanager
def _serving(var_dir: Path, vendor: FakeVendor, urls: dict[str, str]) -> Iterator[WebProcess]:
    environment = {
        "AUTOFORGE_VAR_DIR": str(var_dir),
        "AUTOFORGE_ALLOW_PRIVATE_ENDPOINTS": "1",
        "AUTOFORGE_MODEL_MAX_ATTEMPTS": "1",
        "DATABASE_URL": "",
        "REDIS_URL": "",
        "DEBUG": "1",
    } | urls
    filled = subprocess.run(
        [sys.executable, "-m", "tests.prompts.compat.openai.populate", vendor.base_url],
        cwd=ROOT,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        check=True,
    )
    process = WebProcess("uvicorn", environment, json.loads(filled.stdout), var_dir / "web.log")
    try:
        yield process.start()
    finally:
        process.stop()


@pytest.fixture
def options(gateway: WebProcess) -> Callable[..., dict[str, Any]]:
    """`options("viewer")`: what a client is made with; the two lines a user changes come first."""

    def of(key: str = "editor", **more: Any) -> dict[str, Any]:
        base_url = f"http://127.0.0.1:{gateway.port}/v1"
        return {"base_url": base_url, "api_key": gateway.world.get(key, key), "max_retries": 0} | more

    return of


@pytest.fixture
def connect(options: Callable[..., dict[str, Any]]) -> Iterator[Connect]:
    """`connect("viewer", max_retries=2)`: a client with the key of that name."""
    clients: list[OpenAI] = []

    def connected(key: str = "editor", **more: Any) -> OpenAI:
        clients.append(OpenAI(**options(key, **more)))
        return clients[-1]

    yield connected
    for client in clients:
        client.close()


@pytest.fixture
def client(connect: Connect) -> OpenAI:
    """An editor of the project acme."""
    return connect()


@pytest.fixture
def ask() -> Ask:
    """`ask()`: the arguments of a question that nobody has asked before, for the model gpt."""

    def question() -> dict[str, Any]:
        return {"model": "gpt", "messages": [{"role": "user", "content": f"question {next(_questions)}"}]}

    return question
