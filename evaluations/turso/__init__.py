"""Copies of a project in a libSQL/Turso database, for people who query their results there."""

from evaluations.turso.remote import TursoError
from evaluations.turso.sync import Synced, sync_project

__all__ = ["Synced", "TursoError", "sync_project"]
