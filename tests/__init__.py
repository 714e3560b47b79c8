"""Tests of the project, one package for each of its own, and for the daemons as users meet them.

Hypothesis is patient with all of them: how busy a machine is, is no mistake.
"""

from hypothesis import HealthCheck, settings

settings.register_profile(
    "patient", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("patient")
