#!/usr/bin/env python
"""Django's command line for AutoForge."""

import os


def main() -> None:
    """Run the command named by the arguments."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "autoforge.settings")
    from autoforge.command_line import main as run_command

    run_command()


if __name__ == "__main__":
    main()
