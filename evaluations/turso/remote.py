"""Asks the database itself, over libSQL's HTTP protocol (Hrana), before anything is written to it."""

import urllib.error
import urllib.request
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

import msgspec
from django.conf import settings

from evaluations.turso.tables import ALL_TABLES, SCHEMA_VERSION, Row

STATE_TABLE = "sync_state"
# One row a project. `batch` is new with every transaction: two copies with equal batches are equal.
STATE_DEFINITION = (
    f"CREATE TABLE IF NOT EXISTS {STATE_TABLE} (project TEXT PRIMARY KEY, project_id INTEGER NOT NULL, "
    "installation TEXT NOT NULL, schema_version TEXT NOT NULL, batch TEXT NOT NULL, "
    "started_at TEXT NOT NULL, finished_at TEXT)"
)
STATE_QUERY = f"SELECT project, installation, schema_version, batch FROM {STATE_TABLE} ORDER BY project"  # noqa: S608  a constant
_SCHEMES = ("https://", "http://", "libsql://")
_MAX_REASON_CHARS = 300


class TursoError(Exception):
    """Why the target cannot be synced, in a sentence that says what to do."""


class Remote:
    """The target as it is, without a copy of it."""

    def __init__(self, url: str, token: str) -> None:
        if not url:
            raise TursoError(
                "Set AUTOFORGE_TURSO_URL to the database's address, e.g. libsql://<name>.<host>."
            )
        if not _is_address(url):
            raise TursoError(f"AUTOFORGE_TURSO_URL must be a host after one of {', '.join(_SCHEMES)}.")
        self.url = url.rstrip("/").replace("libsql://", "https://", 1)
        self._token = token

    def state(self, installation: str) -> list[Row]:
        """The rows of its state table; none in an empty database. Raises TursoError for a foreign one."""
        ours = {STATE_TABLE, *(table.name for table in ALL_TABLES)}
        there = {name for (name,) in self.query("SELECT name FROM sqlite_schema WHERE type = 'table'")} & ours
        if not there:
            return []
        if STATE_TABLE not in there:
            raise TursoError(
                f"The database has tables of its own that are called {', '.join(sorted(there))}: "
                "give AutoForge an empty one."
            )
        rows = self.query(STATE_QUERY)
        for row in rows:
            _check(row, installation)
        return rows

    def query(self, sql: str) -> list[Row]:
        """Its rows, all values as text. Raises TursoError."""
        # No "close" behind it: the sync server does not know it, and pyturso sends none either.
        answer = self._post([{"type": "execute", "stmt": {"sql": sql, "want_rows": True}}])
        try:
            result = answer["results"][0]
            if result["type"] != "ok":
                raise TursoError(f"The database refuses {sql!r}: {_short(result['error']['message'])}")
            rows = result["response"]["result"]["rows"]
            # Older servers answer with bare lists of values, newer ones with objects.
            cells = [row["values"] if isinstance(row, dict) else row for row in rows]
            return [tuple(cell.get("value") for cell in row) for row in cells]
        except (KeyError, TypeError, IndexError, AttributeError):
            raise TursoError("What answers at AUTOFORGE_TURSO_URL is no libSQL database.") from None

    def _post(self, requests: list[dict[str, Any]]) -> Any:
        body = msgspec.json.encode({"baton": None, "requests": requests})
        headers = {"Content-Type": "application/json", "User-Agent": "autoforge"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        request = urllib.request.Request(f"{self.url}/v2/pipeline", body, headers)  # noqa: S310  checked above
        try:
            with urllib.request.urlopen(request, timeout=settings.TURSO_TIMEOUT_S) as response:  # noqa: S310  likewise
                return msgspec.json.decode(response.read())
        except urllib.error.HTTPError as error:
            raise TursoError(_refusal(error)) from None
        except (OSError, ValueError) as error:
            reason = error.reason if isinstance(error, urllib.error.URLError) else error
            raise TursoError(f"The database at AUTOFORGE_TURSO_URL does not answer: {reason}.") from None


def _is_address(url: str) -> bool:
    try:
        return url.startswith(_SCHEMES) and bool(urlsplit(url).hostname)
    except ValueError:
        return False


def _check(row: Row, installation: str) -> None:
    project, owner, version, _ = row
    if version != SCHEMA_VERSION:
        raise TursoError(
            f"The database has tables of version {version}, this AutoForge writes version {SCHEMA_VERSION}: "
            "use the release that made them, or an empty database."
        )
    if owner != installation:
        raise TursoError(
            f"The database holds the project {project!r} of another AutoForge, whose ids are not ours: "
            "use an empty database."
        )


def _refusal(error: urllib.error.HTTPError) -> str:
    with error:
        if error.code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            return f"The database refuses the token in AUTOFORGE_TURSO_TOKEN ({error.code})."
        text = _short(error.read(_MAX_REASON_CHARS).decode(errors="replace"))
    return f"The database at AUTOFORGE_TURSO_URL answers {error.code}: {text}"


def _short(text: str) -> str:
    return " ".join(text.split())[:_MAX_REASON_CHARS]
