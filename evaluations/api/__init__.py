"""REST controllers of data sets, runs and their results."""
