"""Runs a command of `manage.py`; what the operator can mend ends with a sentence instead of a traceback."""

import sys

import psycopg
from django.core.exceptions import ImproperlyConfigured
from django.core.management import execute_from_command_line
from django.db import OperationalError


def main() -> None:
    """Run the command named by the arguments."""
    try:
        execute_from_command_line(sys.argv)
    except Exception as error:
        if sentence := _sentence_of(error):
            sys.exit(sentence)
        raise


def _sentence_of(error: Exception) -> str:
    if isinstance(error, ImproperlyConfigured):
        return f"Wrong configuration: {error}"
    if detail := getattr(error, "detail", ""):  # an AppError, whose module needs settings
        return str(detail)
    if isinstance(error.__cause__, psycopg.errors.UndefinedTable) or "no such table" in str(error):
        return "The database has not the tables of this version: run `manage.py migrate`."
    if isinstance(error, OperationalError) and isinstance(error.__cause__, psycopg.OperationalError):
        return f"The database does not answer, or not any more: {error}"
    return ""
