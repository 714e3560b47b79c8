"""Tests of ``harp``."""
