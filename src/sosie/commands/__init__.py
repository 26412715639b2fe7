"""Subcommands of `sosie` that fill a file of their own; `sosie.cli` registers them."""
