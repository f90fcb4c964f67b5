"""A little of everything that an installation counts: answers and refusals, calls, runs, live events."""

import itertools
import json
import socket
import urllib.error
import urllib.request
from typing import Any

from websockets.sync.client import connect

from tests.e2e.conftest import Installation
from tests.fake_vendor import FakeVendor, Reply

# What the installation must be started with, so that limits are near.
SETTINGS = {
    "AUTOFORGE_HTTP_BODY_IDLE": "1",
    "AUTOFORGE_RATE_LIMITS_BY_ROUTE": "models=3",
    "AUTOFORGE_MODEL_MAX_ATTEMPTS": "1",
}
CELLS = 4
_PROMPT = {"name": "observed", "type": "text", "template": "Say {{ word }}"}
_RUN = {
    "prompts": [{"name": "observed"}],
    "models": ["vendor"],
    "dataset": "words",
    "scorers": [{"type": "contains", "value": "{{ expected }}"}],
    "use_cache": False,
}


class Load:
    """Users of one installation, whose model is `vendor`."""

    def __init__(self, server: Installation, vendor: FakeVendor) -> None:
        self._server, self._vendor = server, vendor
        self._rounds = itertools.count(1)
        self._prepare()

    def go_round(self) -> None:
        """Everything once."""
        number = next(self._rounds)
        self._write_and_follow(number)
        self._be_refused()
        self._ask(number)
        self._fall_back(number)
        self._evaluate()

    def _prepare(self) -> None:
        endpoint = {
            "name": "vendor",
            "provider": "openai",
            "model": "m",
            "base_url": self._vendor.base_url,
            "api_key": "k",
            "prices": {"input_per_mtok": 1_000, "output_per_mtok": 1_000},
        }
        cases = [{"vars": {"word": str(number)}, "expected": "world"} for number in range(CELLS)]
        self._request("POST", "prompts", _PROMPT, 201)
        self._request("POST", "models", endpoint, 201)
        self._request("POST", "models", endpoint | {"name": "spare"}, 201)
        self._request("POST", "datasets", {"name": "words"}, 201)
        self._request("POST", "datasets/words/cases", cases, 201)

    def _write_and_follow(self, number: int) -> None:
        for _ in range(3):
            self._request("GET", "prompts/observed", None, 200)
        headers = {"Authorization": f"Bearer {self._server.secret}"}
        address = f"ws://127.0.0.1:{self._server.port}/ws/v1/"
        with connect(address, additional_headers=headers, open_timeout=30) as follower:
            follower.send(json.dumps({"type": "subscribe", "topic": "prompts"}))
            assert "snapshot" in str(follower.recv(timeout=30))
            version = {"template": f"Say {{{{ word }}}}, {number}"}
            self._request("POST", "prompts/observed/versions", version, 201)
            while "version_created" not in str(follower.recv(timeout=30)):
                pass

    def _be_refused(self) -> None:
        self._request("GET", "prompts/none-such", None, 404)
        self._request("POST", "prompts", {"name": 7}, 422)
        while self._server.request("GET", "/api/v1/models")[0] != 429:
            pass
        page = urllib.request.Request(f"{self._server.url}/admin/", headers={"Cookie": "sessionid=unknown"})
        with urllib.request.urlopen(page, timeout=30):
            pass
        self._stop_in_the_middle()

    def _stop_in_the_middle(self) -> None:
        with socket.create_connection(("127.0.0.1", self._server.port), timeout=30) as client:
            head = "POST /api/v1/prompts HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99\r\n\r\n{"
            client.sendall(head.encode())
            assert b" 408 " in client.recv(1_000)

    def _ask(self, number: int) -> None:
        question: dict[str, Any] = {"model": "vendor", "messages": _user(f"question {number}")}
        for _ in range(2):
            self._request("POST", "completions", question, 200)
        self._vendor.script(Reply(status=500), Reply(delay_s=1.0))
        self._request("POST", "completions", question | {"messages": _user(f"broken {number}")}, 502)
        slow = question | {"messages": _user(f"slow {number}"), "params": {"timeout_s": 0.1}}
        self._request("POST", "completions", slow, 502)

    def _fall_back(self, number: int) -> None:
        self._vendor.script(Reply(status=500))
        body = {"model": "vendor", "fallbacks": ["spare"], "messages": _user(f"gateway {number}")}
        assert self._server.request("POST", "/v1/chat/completions", body)[0] == 200

    def _evaluate(self) -> None:
        run = self._request("POST", "runs", _RUN | {"budget_usd": 1_000}, 201)
        ended = self._server.wait_for_run(run["id"])
        assert (ended["state"], ended["passed"]) == ("finished", CELLS), ended
        for _ in range(2):
            self._request("GET", f"runs/{run['id']}/report", None, 200)

    def _request(self, method: str, path: str, body: Any, status: int) -> Any:
        got, answer = self._server.request(method, f"/api/v1/{path}", body)
        assert got == status, (method, path, got, answer)
        return answer


def _user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]
