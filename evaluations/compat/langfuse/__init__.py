"""Langfuse's public API at `/api/public/`: what its SDKs ask of data sets, experiments and scores."""
