"""Surfaces that other systems' clients speak to: they translate shapes and call the same services."""
