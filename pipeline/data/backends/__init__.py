"""Backends of the data stage: numpy, datasketch, DuckDB and the like are imported here only."""
