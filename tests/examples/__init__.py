"""Tests of the applications under ``examples/``."""
