"""Measurements, never timed tests: `python -m tests.bench NAME`; see `__main__.py`."""
