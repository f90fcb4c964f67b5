"""PostgreSQL: its cluster and its command line."""

import secrets
import subprocess
from pathlib import Path
from signal import Signals

import psycopg

from autoforge.local_services.errors import ServiceError
from autoforge.local_services.postgres_binaries import Binaries
from autoforge.local_services.processes import give, remove, unprivileged
from autoforge.local_services.server import environment

ROLE = DATABASE = "autoforge"
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "timezone": "UTC",
}
WITHOUT_DURABILITY = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
}


class Postgres:
    """A cluster in `home`, created there on first use."""

    name = "PostgreSQL"

    def __init__(self, home: Path, password: str, *, is_durable: bool) -> None:
        self.account = unprivileged()
        self.binaries = Binaries.usable_by(self.account, copy_to=home / "binaries")
        self.home = home
        self.cluster = home / "cluster"
        self.log = home / "postgres.log"
        self.password = password
        self.is_durable = is_durable
        self.settings = SETTINGS if is_durable else SETTINGS | WITHOUT_DURABILITY
        self.stop_signal = Signals.SIGINT if is_durable else Signals.SIGQUIT
        if not self.cluster.exists():
            self._create_cluster()

    def command(self, port: int) -> list[str]:
        """The postmaster, in the foreground."""
        settings = [f"--{name}={value}" for name, value in self.settings.items()]
        return [self.binaries["postgres"], "-D", str(self.cluster), f"--port={port}", *settings]

    def is_answering(self, port: int) -> bool:
        """Whether our role is let in. Creates our database when it is."""
        try:
            create_database(self._url(port, "postgres"))
        except psycopg.OperationalError:
            return False
        return True

    def url(self, port: int) -> str:
        """A URL in the form of django-environ."""
        return self._url(port, DATABASE)

    def _url(self, port: int, database: str) -> str:
        return f"postgres://{ROLE}:{self.password}@127.0.0.1:{port}/{database}"

    def _create_cluster(self) -> None:
        """Run initdb beside the final place: a half-made cluster is never taken for a whole one."""
        unfinished = self.home / "unfinished"
        remove(unfinished)
        password_file = self.home / f"password-{secrets.token_hex(8)}"
        password_file.touch(mode=0o600)
        password_file.write_text(self.password)
        give(password_file, self.account)
        try:
            self._initdb(unfinished, password_file)
        finally:
            password_file.unlink()
        unfinished.rename(self.cluster)

    def _initdb(self, directory: Path, password_file: Path) -> None:
        created = subprocess.run(
            [
                self.binaries["initdb"],
                f"--pgdata={directory}",
                f"--username={ROLE}",
                f"--pwfile={password_file}",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                *self.binaries.locale_options,
                *([] if self.is_durable else ["--no-sync"]),
            ],
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            cwd="/",
            env=environment(),
            **self.account,
        )
        if created.returncode:
            raise ServiceError(f"initdb failed: {created.stderr.strip()}")


def create_database(maintenance_url: str) -> None:
    """Create our database unless it is there. Raises psycopg.OperationalError while starting up."""
    with psycopg.connect(maintenance_url, autocommit=True, connect_timeout=5) as connection:
        known = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE])
        if not known.fetchone():
            connection.execute(f"CREATE DATABASE {DATABASE}")
