"""Builds the documentation site: `python -m pages`, which `make docs` runs."""
