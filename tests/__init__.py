"""Tests of the project, one package for each of its own, and for the daemons as users meet them."""
