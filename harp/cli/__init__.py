"""The ``harp`` command: one module for each of its commands, ``harp.cli.main`` finds them."""
