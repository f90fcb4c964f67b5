"""First start of an installation on this machine: tables, sample project, admin login, API key."""

import json
import os
import secrets
from pathlib import Path

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.db import connection

from autoforge.models import ApiKey, Project, Role
from autoforge.services import create_api_key, get_or_create_project

SAMPLE_PROJECT = "demo"
_ADMIN = "admin"


def prepare() -> dict[str, str]:
    """Bring the database up to date and return the logins: `admin`, `password`, `public`, `secret`.

    Both are made at the first start and kept in var/credentials.<database>.json, readable by its owner only.
    """
    call_command("migrate", verbosity=0, interactive=False)
    if not Project.objects.filter(name=SAMPLE_PROJECT).exists():
        call_command("load_sample", project=SAMPLE_PROJECT, verbosity=0)
    path = settings.VAR_DIR / f"credentials.{connection.vendor}.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    credentials = known | _admin_login(known) | _api_key(known)
    if credentials != known:
        write_private(path, json.dumps(credentials, indent=1))
    return credentials


def introduction(credentials: dict[str, str], port: int) -> str:
    """What a person needs to get in."""
    base = f"http://127.0.0.1:{port}"
    login = (
        f"{credentials['admin']} / {credentials['password']}" if "admin" in credentials else "(your login)"
    )
    return (
        f"admin    {base}/admin/  {login}\n"
        f"API key  {credentials['secret']}  (project {SAMPLE_PROJECT})\n"
        f"API      {base}/api/docs"
    )


def write_private(path: Path, text: str) -> None:
    """Replace `path` by `text`, never readable by others, never half-written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.unlink(missing_ok=True)
    fresh.touch(mode=0o600)
    fresh.write_text(text)
    fresh.replace(path)


def write_environment(port: int) -> Path:
    """var/serve.env: what another shell sources to join the running services."""
    path: Path = settings.VAR_DIR / "serve.env"
    values = {
        "DATABASE_URL": settings.DATABASE_URL,
        "REDIS_URL": settings.REDIS_URL,
        "AUTOFORGE_EXECUTOR": settings.EXECUTOR,
        "AUTOFORGE_VAR_DIR": str(settings.VAR_DIR),
        "PORT": str(port),
    }
    write_private(path, "".join(f"{name}={value}\n" for name, value in values.items()))
    return path


def _admin_login(known: dict[str, str]) -> dict[str, str]:
    """A superuser whose password is known here; a password somebody changed is left alone."""
    users = get_user_model().objects
    if users.filter(username=_ADMIN).exists():
        return {}
    password = secrets.token_urlsafe(12)
    users.create_superuser(_ADMIN, password=password)
    return {"admin": _ADMIN, "password": password}


def _api_key(known: dict[str, str]) -> dict[str, str]:
    if ApiKey.objects.usable().filter(public_id=known.get("public", "")).exists():
        return {}
    project = get_or_create_project(SAMPLE_PROJECT)
    new = create_api_key(project, name="first start", role=Role.OWNER)
    return {"public": new.key.public_id, "secret": new.secret}
