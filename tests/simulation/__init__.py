"""The dispatcher among clients, harpds and faults, all decided by a seed.

``python -m tests.simulation SEED`` tells what happens under one seed; see ``__main__``.
"""
