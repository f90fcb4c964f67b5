"""What stops a measurement."""


class PerfError(Exception):
    """Nothing could be measured; the text says why and what to do about it."""
