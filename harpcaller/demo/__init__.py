"""A whole HarpCaller on one machine, to be looked at and played with: ``make demo``."""
