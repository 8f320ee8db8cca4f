"""Hypothesis for all unit tests: a slow machine is no failure, and nothing is left in the checkout."""

from hypothesis import settings

settings.register_profile("refinery", deadline=None, database=None)
settings.load_profile("refinery")
