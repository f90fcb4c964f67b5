"""A SECRET_KEY for development: made once per checkout, so that sessions outlive a restart."""

import contextlib
import os
import secrets
from pathlib import Path


def development_secret_key(var_dir: Path) -> str:
    """The key kept in `var_dir/secret_key`, created with mode 0600 by whoever comes first."""
    path = var_dir / "secret_key"
    var_dir.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    if not path.exists():
        fresh.touch(mode=0o600)
        # Not Django's own: one in fifty starts with `$`, which is another variable's name in an environment.
        fresh.write_text(secrets.token_urlsafe(50))
        with contextlib.suppress(FileExistsError):
            os.link(fresh, path)  # atomic: a reader never sees an empty file
        fresh.unlink()
    return path.read_text()
