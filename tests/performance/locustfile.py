"""People at work, for Locust: `locust -f tests/performance/locustfile.py --host=http://localhost:8000`.

AUTOFORGE_KEY is the secret of an editor's key without a rate limit. Without it one is made, in the project
`locust` of the installation that AUTOFORGE_VAR_DIR (default: var/) belongs to.
"""

import json
import os
import random
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from locust import FastHttpUser, User, between, events, task
from locust.env import Environment
from websocket import WebSocket, WebSocketException, create_connection

ROOT = Path(__file__).resolve().parents[2]
PROMPTS = [f"locust/{number:02}" for number in range(10)]
NAME = "locust"  # of the project, the data set, the endpoint and the key
CASES = [{"vars": {"message": f"Question {number}"}, "expected": "Question"} for number in range(10)]
ENDED = ("finished", "failed", "cancelled", "over_budget")
PATIENCE_S = 30.0
T = TypeVar("T")

headers: dict[str, str] = {}


@events.init.add_listener
def authorise(**_: Any) -> None:
    """Find or make the key."""
    secret = os.environ.get("AUTOFORGE_KEY") or new_key()
    headers.update({"Authorization": f"Bearer {secret}", "Content-Type": "application/json"})


@events.test_start.add_listener
def prepare(environment: Environment, **_: Any) -> None:
    """Make what the users ask for, where it is missing."""
    host = str(environment.host).rstrip("/")
    model = {"provider": "simulated", "settings": {"latency_ms": 50, "output": "echo"}}
    create(host, "models", {"name": NAME} | model)
    for prompt in PROMPTS:
        create(
            host, "prompts", {"name": prompt, "type": "chat", "template": chat(), "labels": ["production"]}
        )
    if create(host, "datasets", {"name": NAME}):
        create(host, f"datasets/{NAME}/cases", CASES)


def new_key() -> str:
    """The secret of a key that the installation's own command makes."""
    var = Path(os.environ.get("AUTOFORGE_VAR_DIR", ROOT / "var"))
    known = var / "serve.env"
    if not known.exists():
        sys.exit(f"No installation runs from {var}: start `make run` or `make serve`, or set AUTOFORGE_KEY.")
    joined = dict(line.split("=", 1) for line in known.read_text().splitlines() if "=" in line)
    words = ["create_api_key", "--project", NAME, "--name", NAME, "--rate-limit", "0", "--json"]
    command = [sys.executable, "manage.py", *words]
    made = subprocess.run(
        command, cwd=ROOT, env=os.environ | joined, capture_output=True, text=True, check=False
    )
    if made.returncode:
        sys.exit(f"No key could be made: {made.stderr.strip()[-500:]}")
    return str(json.loads(made.stdout)["secret"])


def create(host: str, path: str, body: Any) -> bool:
    """POST `body`; False when there is one of that name already."""
    request = urllib.request.Request(f"{host}/api/v1/{path}", json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=30):
            return True
    except urllib.error.HTTPError as error:
        if error.code == 409:
            return False
        sys.exit(f"POST {path} was answered {error.code}: {error.read().decode()[:500]}")


def chat(note: str = "") -> list[dict[str, str]]:
    rules = "Answer in one sentence. Name the product. Never promise a refund. " * 6
    return [{"role": "system", "content": rules + note}, {"role": "user", "content": "{{ message }}"}]


class Member(FastHttpUser):
    """Somebody with a key."""

    abstract = True
    # A server closes a connection that nobody used for some seconds, maybe just as it is used again.
    max_retries = 1

    def ask(self, method: str, path: str, name: str, body: Any = None, **more: str) -> Any:
        """The decoded answer; Locust reports it under `name`."""
        answer = self.client.request(method, f"/api/v1/{path}", name=name, json=body, headers=headers | more)
        return answer.json() if answer.ok and answer.content else {}


class Reader(Member):
    """An application that uses prompts: it reads them by label, mostly unchanged ones, and renders some."""

    weight = 12
    wait_time = between(0.5, 2)

    def on_start(self) -> None:
        self.etags: dict[str, str] = {}

    @task(8)
    def read(self) -> None:
        path = f"/api/v1/prompts/{random.choice(PROMPTS)}?label=production"
        known = {"If-None-Match": self.etags[path]} if path in self.etags else {}
        answer = self.client.get(path, name="prompt by label", headers=headers | known)
        self.etags[path] = answer.headers.get("ETag", "") if answer.ok and answer.headers else ""

    @task(2)
    def render(self) -> None:
        body = {"vars": {"message": "My lamp does not light up."}}
        self.ask("POST", f"prompts/{random.choice(PROMPTS)}/render", "render", body)

    @task(1)
    def browse(self) -> None:
        self.ask("GET", "prompts?limit=20", "prompts")


class Editor(Member):
    """Somebody who improves a prompt: reads it, writes a version, looks at the difference, releases it."""

    weight = 3
    wait_time = between(1, 4)

    @task
    def improve(self) -> None:
        path = f"prompts/{random.choice(PROMPTS)}"
        before = self.ask("GET", f"{path}?label=production", "prompt by label")
        template = chat(f"Note {uuid.uuid4().hex}.")
        after = self.ask("POST", f"{path}/versions", "new version", {"template": template})
        if not (before and after):
            return
        numbers = f"from={before['version']}&to={after['version']}"
        self.ask("GET", f"{path}/diff?{numbers}", "diff")
        self.ask("PUT", f"{path}/labels/production", "move label", {"version": after["version"]})


class Evaluator(Member):
    """Somebody who runs a data set and waits for the report."""

    weight = 2
    wait_time = between(2, 4)

    @task
    def evaluate(self) -> None:
        new = {
            "prompts": [{"name": random.choice(PROMPTS)}],
            "models": [NAME],
            "dataset": NAME,
            "scorers": [{"type": "contains", "value": "{{ expected }}"}],
        }
        run = self.ask("POST", "runs", "start run", new)
        while run and run["state"] not in ENDED:
            time.sleep(1)
            run = self.ask("GET", f"runs/{run['id']}", "run")
        if run:
            self.ask("GET", f"runs/{run['id']}/results?limit=20", "results")
            self.ask("GET", f"runs/{run['id']}/report", "report")


class Watcher(User):
    """A page that follows the prompts over a WebSocket, and asks now and then whether it is still there."""

    weight = 3
    wait_time = between(1, 3)

    @task
    def watch(self) -> None:
        """Stay for a while, then come again, as after a reload."""
        url = f"{str(self.host).replace('http', 'ws', 1).rstrip('/')}/ws/v1/"
        header = {"Authorization": headers["Authorization"]}
        open_socket = partial(create_connection, url, header=header, timeout=PATIENCE_S, suppress_origin=True)
        socket = self.timed("connect", open_socket)
        if socket is None:
            return
        with closing(socket):
            self.timed("subscribe", lambda: talk(socket, "subscribe", "snapshot", topic="prompts"))
            for _ in range(random.randint(3, 15)):
                self.wait()
                self.timed("ping", lambda: talk(socket, "ping", "pong"))

    def timed(self, name: str, act: Callable[[], T]) -> T | None:
        """What `act` returns, None when it failed; Locust reports how long it took."""
        started, result, failure = time.perf_counter(), None, None
        try:
            result = act()
        except (OSError, WebSocketException) as error:
            failure = error
        self.environment.events.request.fire(
            request_type="WS",
            name=name,
            response_time=(time.perf_counter() - started) * 1000,
            response_length=0,
            exception=failure,
            context={},
        )
        return result


def talk(socket: WebSocket, type: str, answer: str, **more: str) -> None:
    """Say something and read up to the answer: in between come events of others."""
    socket.send(json.dumps({"type": type} | more))
    while json.loads(socket.recv())["type"] != answer:
        pass
