"""Measurements, each a ratio against a reference in the same run; `python -m bench.<name>` prints and records one."""
