"""Sosie finds duplicate product listings in a marketplace catalogue, every hour, from what changed."""

__version__ = "0.1.0"
