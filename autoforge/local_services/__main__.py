"""`python -m autoforge.local_services [--fresh] -- CMD …`: the same without Django's settings."""

import argparse
import sys

from autoforge.local_services.command import add_arguments, run_with_services

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m autoforge.local_services")
    add_arguments(parser)
    options = parser.parse_args()
    sys.exit(run_with_services(options.command, fresh=options.fresh))
