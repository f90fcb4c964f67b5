"""The development key: made once, and fit to be handed on in an environment."""

from pathlib import Path

import environ
import pytest

from autoforge.secret_key import development_secret_key


def test_it_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    key = development_secret_key(tmp_path / "var")
    assert development_secret_key(tmp_path / "var") == key
    assert len(key) >= 50
    assert (tmp_path / "var" / "secret_key").stat().st_mode & 0o077 == 0


def test_it_arrives_whole_in_another_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(300):
        key = development_secret_key(tmp_path / str(number))
        monkeypatch.setenv("SECRET_KEY", key)
        assert environ.Env().str("SECRET_KEY", default="") == key
