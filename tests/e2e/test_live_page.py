"""The browser's client and the page of a live run, in a real browser."""

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve

pytest.importorskip("selenium", reason="needs selenium, of requirements-dev.txt")
from tests.e2e.browser import CHROMIUM, DRIVER, Browser, browsing
from tests.e2e.conftest import Installation, installed
from tests.fake_vendor import Reply, fake_vendor

pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver on the path"
)

CELLS = 52
NEW_RUN = {
    "name": "Seen live",
    "prompts": [{"name": "support/classify", "version": 1}],
    "models": ["talker"],
    "dataset": "support",
    "scorers": [{"type": "icontains", "value": "praise"}],
    "concurrency": 6,
    "use_cache": False,
}
TALKER = {
    "name": "talker",
    "provider": "simulated",
    "settings": {"latency_ms": 100, "tokens_per_s": 12, "output": "I would call this one praise, I think"},
}
# Follows `prompts` at the given address and notes what comes and how the connection does.
FOLLOW = """
const [url, done] = arguments;
window.heard = [];
window.states = [];
import("/static/realtime/client.js").then(({ connect }) => {
  window.connection = connect({ url, onState: (...state) => states.push(state) });
  window.leave = connection.subscribe("prompts", ({ type, seq }) => heard.push([type, seq]));
  done();
});
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with installed(tmp_path_factory.mktemp("live") / "var", "run_server") as installation:
        yield installation


@pytest.fixture
def browser(server: Installation, chromium: Any) -> Iterator[Browser]:
    with browsing(chromium, server.url) as window:
        yield window


def sign_in(server: Installation, browser: Browser) -> None:
    login = re.search(r"/admin/  (\S+) / (\S+)", server.output)
    assert login
    browser.open("/admin/")
    browser.fill("[name=username]", login[1])
    browser.fill("[name=password]", login[2])
    browser.click("[type=submit]")
    browser.find("#nav-sidebar-apps")


def test_a_run_is_followed_to_its_end(server: Installation, browser: Browser) -> None:
    assert server.request("POST", "/api/v1/models", TALKER)[0] == 201
    sign_in(server, browser)
    status, run = server.request("POST", "/api/v1/runs", NEW_RUN)
    assert status == 201
    browser.open(f"/live/{run['id']}")
    browser.wait(lambda _: browser.text("#connection") == "open")
    browser.wait(lambda _: "I would call this" in browser.text("#speaking li"))
    assert browser.count(".cells li") == CELLS
    browser.wait(lambda _: 0 < browser.count(".cells .passed") < CELLS)
    browser.wait(lambda _: browser.text("[data-count=state]") == "finished")
    browser.wait(lambda _: browser.count(".cells .passed") == CELLS)
    ended = server.wait_for_run(run["id"])
    assert (ended["passed"], ended["total"]) == (CELLS, CELLS)
    counts = {name: browser.text(f"[data-count={name}]") for name in ("done", "passed", "failed")}
    assert counts == {"done": "52", "passed": "52", "failed": "0"}
    assert browser.driver.execute_script("return document.getElementById('speaking').hidden")
    # Who comes later sees the same.
    browser.open(f"/live/{run['id']}")
    browser.wait(lambda _: browser.count(".cells .passed") == CELLS)
    assert browser.text("[data-count=state]") == "finished"
    assert browser.complaints() == []


def test_a_cell_that_is_tried_again_keeps_its_square(server: Installation, browser: Browser) -> None:
    squares = "return [...document.querySelectorAll('.cells li')].map((square) => square.title)"
    refusal = Reply(status=400, error={"message": "not today", "type": "invalid_request_error"})
    with fake_vendor() as vendor:
        endpoint = {"name": "moody", "provider": "openai", "model": "m", "base_url": vendor.base_url}
        assert server.request("POST", "/api/v1/models", endpoint)[0] == 201
        vendor.script(*[refusal] * 5)
        scorers = [{"type": "icontains", "value": "hello"}]
        run = server.request("POST", "/api/v1/runs", NEW_RUN | {"models": ["moody"], "scorers": scorers})[1]
        assert server.wait_for_run(run["id"])["errors"] == 5
        sign_in(server, browser)
        browser.open(f"/live/{run['id']}")
        browser.wait(lambda _: browser.count(".cells .error") == 5)
        browser.wait(lambda _: browser.count(".cells .passed") == CELLS - 5)
        before = browser.driver.execute_script(squares)
        assert server.request("POST", f"/api/v1/runs/{run['id']}/retry-errors")[0] == 200
        browser.wait(lambda _: browser.count(".cells .passed") == CELLS)
        after = browser.driver.execute_script(squares)
    assert after == [title.replace("error", "passed") for title in before]
    assert browser.complaints() == []


class Peer:
    """A WebSocket server with a script for each connection; keeps what it was told."""

    def __init__(self, *scripts: Callable[["Peer", ServerConnection], None]) -> None:
        self.said: list[dict[str, Any]] = []
        self._scripts = list(scripts)

    def handle(self, connection: ServerConnection) -> None:
        with suppress(ConnectionClosed):
            self._scripts.pop(0)(self, connection)

    def hear(self, connection: ServerConnection) -> dict[str, Any]:
        self.said.append(json.loads(connection.recv()))
        return self.said[-1]


@contextmanager
def peer(*scripts: Callable[[Peer, ServerConnection], None]) -> Iterator[tuple[Peer, str]]:
    """The peer and its address."""
    one = Peer(*scripts)
    with serve(one.handle, "127.0.0.1", 0) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        yield one, f"ws://127.0.0.1:{listening.socket.getsockname()[1]}/"
        listening.shutdown()
    thread.join()


def tell(connection: ServerConnection, type: str, **fields: Any) -> None:
    connection.send(json.dumps({"type": type, **fields}))


def topical(connection: ServerConnection, type: str, seq: int) -> None:
    tell(connection, type, topic="prompts", seq=seq, data={}, event="label_moved")


def follow(browser: Browser, url: str) -> None:
    browser.open("/health/live")
    browser.driver.execute_async_script(FOLLOW, url)


def noted(browser: Browser, name: str) -> Any:
    return browser.driver.execute_script(f"return window.{name}")


def stay(one: Peer, connection: ServerConnection) -> None:
    """Answer every subscription with the same snapshot."""
    while one.hear(connection)["type"] == "subscribe":
        topical(connection, "snapshot", 7)


def test_a_gap_leads_to_a_new_snapshot(browser: Browser) -> None:
    def gap(one: Peer, connection: ServerConnection) -> None:
        one.hear(connection)
        topical(connection, "snapshot", 5)
        for seq in (6, 6, 8, 9):
            topical(connection, "event", seq)
        assert one.hear(connection) == {"type": "subscribe", "topic": "prompts"}
        topical(connection, "event", 10)
        topical(connection, "snapshot", 10)
        topical(connection, "event", 11)
        one.hear(connection)

    with peer(gap) as (_, url):
        follow(browser, url)
        browser.wait(lambda _: ["event", 11] in noted(browser, "heard"))
        assert noted(browser, "heard") == [["snapshot", 5], ["event", 6], ["snapshot", 10], ["event", 11]]
        browser.driver.execute_script("connection.close()")


def test_it_comes_back_when_the_server_said(browser: Browser) -> None:
    def restart(one: Peer, connection: ServerConnection) -> None:
        one.hear(connection)
        topical(connection, "snapshot", 5)
        tell(connection, "closing", code=1012, retry_after_ms=321)
        connection.close(1012)

    def vanish(one: Peer, connection: ServerConnection) -> None:
        one.hear(connection)
        connection.socket.close()

    with peer(restart, vanish, stay) as (one, url):
        follow(browser, url)
        browser.wait(lambda _: ["snapshot", 7] in noted(browser, "heard"))
        states = noted(browser, "states")
        assert states[:4] == [["connecting"], ["open"], ["waiting", 321], ["connecting"]]
        assert [state for state, *_ in states[4:]] == ["open", "waiting", "connecting", "open"]
        # The first waits are at most 0.5 and 1 second long.
        assert states[5][1] <= 1_000
        assert one.said == [{"type": "subscribe", "topic": "prompts"}] * 3
        browser.driver.execute_script("connection.close()")
        browser.wait(lambda _: noted(browser, "states")[-1][0] == "closed")


def test_who_is_refused_does_not_try_again(browser: Browser) -> None:
    with peer(lambda _, connection: connection.close(4401)) as (_, url):
        follow(browser, url)
        browser.wait(lambda _: noted(browser, "states")[-1] == ["closed", 4401])
        time.sleep(1)  # the first wait of a client that tries again is at most half a second
        assert [state for state, *_ in noted(browser, "states")] == ["connecting", "open", "closed"]


def test_completions_are_streamed_and_told_apart(browser: Browser) -> None:
    def answer(one: Peer, connection: ServerConnection) -> None:
        while (asked := one.hear(connection))["type"] != "complete":
            pass
        other = one.hear(connection)
        tell(connection, "token", id=asked["id"], text="Hel")
        tell(connection, "failed", id=other["id"], code="not_found", detail="no such prompt")
        tell(connection, "token", id=asked["id"], text="lo")
        tell(connection, "completed", id=asked["id"], text="Hello")
        lost = one.hear(connection)
        assert lost["messages"] == []
        connection.socket.close()

    complete = """
    const done = arguments[0];
    const pieces = [];
    const code = (error) => error.code;
    Promise.all([
      connection.complete({ prompt: "greet" }, { onText: (text) => pieces.push(text) }),
      connection.complete({ prompt: "missing" }).catch(code),
    ]).then(async ([{ text }, other]) => {
      done([pieces, text, other, await connection.complete({ messages: [] }).catch(code)]);
    });
    """
    with peer(answer, stay) as (_, url):
        follow(browser, url)
        browser.wait(lambda _: ["open"] in noted(browser, "states"))
        outcome = browser.driver.execute_async_script(complete)
        assert outcome == [["Hel", "lo"], "Hello", "not_found", "connection_lost"]
        browser.driver.execute_script("connection.close()")


def test_what_is_cancelled_already_is_not_asked(browser: Browser) -> None:
    complete = """
    const done = arguments[0];
    const why = (error) => error.code;
    const late = new AbortController();
    Promise.all([
      connection.complete({ prompt: "never" }, { signal: AbortSignal.abort() }).catch(why),
      connection.complete({ prompt: "soon" }, { signal: late.signal }).catch(why),
    ]).then(done);
    late.abort();
    """

    def answer(one: Peer, connection: ServerConnection) -> None:
        while (heard := one.hear(connection))["type"] != "cancel":
            pass
        tell(connection, "cancelled", id=heard["id"])
        one.hear(connection)

    with peer(answer) as (one, url):
        follow(browser, url)
        browser.wait(lambda _: ["open"] in noted(browser, "states"))
        assert browser.driver.execute_async_script(complete) == ["cancelled", "cancelled"]
        browser.driver.execute_script("connection.close()")
    assert [each.get("prompt", each["type"]) for each in one.said] == ["subscribe", "soon", "cancel"]


def test_a_topic_that_is_away_is_asked_for_again_unless_it_was_left(browser: Browser) -> None:
    def refuse(one: Peer, connection: ServerConnection) -> None:
        for seq in range(2):
            one.hear(connection)
            tell(connection, "error", topic="prompts", code="unavailable", detail="try again")
            topical(connection, "snapshot", seq)  # whoever hears it has heard the error
        while one.hear(connection):
            pass

    with peer(refuse) as (one, url):
        follow(browser, url)
        browser.wait(lambda _: ["snapshot", 1] in noted(browser, "heard"))
        browser.driver.execute_script("leave()")
        time.sleep(1)  # it asks again after half a second
        browser.driver.execute_script("connection.close()")
    assert [each["type"] for each in one.said] == ["subscribe", "subscribe", "unsubscribe"]
