"""The target: a local replica that is written to, transaction by transaction, and pushed."""

import fcntl
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

import turso
import turso.sync
from django.conf import settings
from django.utils import timezone

from autoforge.models import Project
from evaluations.turso.remote import STATE_DEFINITION, STATE_QUERY, STATE_TABLE, Remote, TursoError
from evaluations.turso.tables import ALL_TABLES, SCHEMA_VERSION, Row, Table

_BATCH_ROWS = 1_000
_BATCH_BYTES = 4 * 1024 * 1024
# Until it is pulled, what was pushed stays in the replica's log a second time.
_PULL_BYTES = 32 * 1024 * 1024
_PAGE_KEYS = 2_000


class Target:
    """Writes rows of one project. A transaction is pushed as a whole, or not at all."""

    def __init__(self, connection: turso.sync.ConnectionSync, project: str) -> None:
        self._connection = connection
        self._project = project
        self._statement = ""
        self._pending: list[Row] = []
        self._rows = self._bytes = self._unpulled_bytes = 0

    def keys(self, table: Table, scope: Any) -> Iterator[Row]:
        """What `table.keys` says, as the target has it."""
        names = [name for name in table.names if name in table.compared]
        return self._pages(table, names, table.scope, scope)

    def remove(self, table: Table, key: Any) -> None:
        self._write(f"DELETE FROM {table.name} WHERE id = ?", (key,))  # noqa: S608  a constant

    def insert(self, table: Table, row: Row) -> None:
        """A row that is not there. (pyturso 0.8.3 breaks on an upsert that updates: none is used.)"""
        names = ", ".join(["project", *table.names])
        marks = ", ".join("?" * (len(row) + 1))
        sql = f"INSERT INTO {table.name} ({names}) VALUES ({marks})"  # noqa: S608  names are constants
        self._write(sql, (self._project, *row))

    def flush(self, *, finished_at: str | None = None) -> None:
        """Commit and push what was written; with `finished_at` as the last of a sync."""
        if not self._rows and finished_at is None:
            return
        self._execute_pending()
        self._connection.execute(
            f"UPDATE {STATE_TABLE} SET batch = ?, finished_at = ? WHERE project = ?",  # noqa: S608  a constant
            (uuid4().hex, finished_at, self._project),
        )
        self._connection.commit()
        self._connection.push()
        self._unpulled_bytes += self._bytes
        self._rows = self._bytes = 0
        if self._unpulled_bytes > _PULL_BYTES or finished_at:
            self._connection.pull()
            self._connection.checkpoint()
            self._unpulled_bytes = 0

    def start(self, installation: str, project_id: int) -> None:
        """Create what is missing, and say that a sync is under way."""
        for statement in (STATE_DEFINITION, *(s for table in ALL_TABLES for s in table.definitions)):
            self._connection.execute(statement)
        names = self._connection.execute(f"SELECT project, project_id FROM {STATE_TABLE}").fetchall()  # noqa: S608  a constant
        self._write(f"DELETE FROM {STATE_TABLE} WHERE project = ?", (self._project,))  # noqa: S608  likewise
        row = (self._project, project_id, installation, SCHEMA_VERSION, "", _now(), None)
        self._write(f"INSERT INTO {STATE_TABLE} VALUES (?, ?, ?, ?, ?, ?, ?)", row)  # noqa: S608  likewise
        for old in [name for name, id_ in names if id_ == project_id and name != self._project]:
            self._rename(old)

    def _rename(self, old: str) -> None:
        """The project was called differently at its last sync."""
        for table in ALL_TABLES:
            for (key,) in self._pages(table, ["id"], "project", old):
                self._write(f"UPDATE {table.name} SET project = ? WHERE id = ?", (self._project, key))  # noqa: S608  a constant
        self._write(f"DELETE FROM {STATE_TABLE} WHERE project = ?", (old,))  # noqa: S608  likewise

    def _pages(self, table: Table, names: list[str], scope: str, value: Any) -> Iterator[Row]:
        sql = (
            f"SELECT {', '.join(names)} FROM {table.name} "  # noqa: S608  names are constants
            f"WHERE {scope} = ? AND id > ? ORDER BY id LIMIT {_PAGE_KEYS}"
        )
        # Less than any id; as SQLite compares, also than one that is a text.
        last: Any = -1
        while page := self._connection.execute(sql, (value, last)).fetchall():
            yield from map(tuple, page)
            last = page[-1][0]

    def _write(self, statement: str, values: Row) -> None:
        if statement != self._statement:
            self._execute_pending()
            self._statement = statement
        self._pending.append(values)
        self._rows += 1
        self._bytes += sum(len(value) for value in values if isinstance(value, str))
        if self._rows >= _BATCH_ROWS or self._bytes >= _BATCH_BYTES:
            self.flush()

    def _execute_pending(self) -> None:
        if self._pending:
            self._connection.executemany(self._statement, self._pending)
            self._pending.clear()


@contextmanager
def open_target(project: Project, installation: str) -> Iterator[Target]:
    """The configured target, kept from other syncs of this machine. Raises TursoError."""
    remote = Remote(settings.TURSO_URL, settings.TURSO_TOKEN)
    directory = settings.VAR_DIR / "turso" / sha256(remote.url.encode()).hexdigest()[:16]
    with _exclusive(directory), _socket_timeout(settings.TURSO_TIMEOUT_S), _errors_in_words():
        connection = _replica(directory, remote, remote.state(installation))
        try:
            target = Target(connection, project.name)
            target.start(installation, project.pk)
            yield target
            target.flush(finished_at=_now())
        finally:
            connection.close()
        _trusted(directory).touch()


def _now() -> str:
    return timezone.now().isoformat(timespec="microseconds")


def _trusted(directory: Path) -> Path:
    """Exists between a sync that ended well and the next: no other replica is used again."""
    return directory / "trusted"


def _replica(directory: Path, remote: Remote, state: list[Row]) -> turso.sync.ConnectionSync:
    """The replica of the last sync if it is what the target holds, else a fresh one."""
    if _trusted(directory).exists():
        _trusted(directory).unlink()
        try:
            connection = _connect(directory, remote)
            connection.pull()
            if _state_of(connection) == state:
                return connection
            connection.close()
        except turso.Error:
            pass  # whatever it is, a fresh replica has it not, or says so
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(mode=0o700, parents=True)
    return _connect(directory, remote)


def _connect(directory: Path, remote: Remote) -> turso.sync.ConnectionSync:
    return turso.sync.connect(
        str(directory / "replica.db"),
        remote_url=remote.url,
        auth_token=settings.TURSO_TOKEN or None,
        client_name="autoforge",
    )


def _state_of(connection: turso.sync.ConnectionSync) -> list[Row]:
    return [tuple(row) for row in connection.execute(STATE_QUERY).fetchall()]


@contextmanager
def _exclusive(directory: Path) -> Iterator[None]:
    directory.parent.mkdir(parents=True, exist_ok=True)
    with directory.with_suffix(".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TursoError("Another sync to this database is under way: wait until it has ended.") from None
        yield


@contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    """pyturso gives its requests none of their own."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


@contextmanager
def _errors_in_words() -> Iterator[None]:
    try:
        yield
    except turso.Error as error:
        raise TursoError(f"The database has not taken all changes, sync again: {error}") from error
