"""Tests of the package harpcaller."""
