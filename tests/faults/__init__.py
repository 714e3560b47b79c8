"""Faults of the machine, the network and the peers, brought upon the real daemons.

Each test shows what the user sees, that other jobs go on meanwhile, that nothing acknowledged is
lost, and that all is well again when the fault has ended. ``make test-faults`` runs all of it in
the long form; the short form is part of ``make test``.
"""
