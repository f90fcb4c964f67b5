"""Calling language models: cache, single flight, limits, provider, price."""
