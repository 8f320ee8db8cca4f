"""Hypothesis in unit tests: a slow machine is no failure, no run depends on an earlier one."""

from hypothesis import settings

settings.register_profile("refinery", deadline=None, database=None)
settings.load_profile("refinery")
