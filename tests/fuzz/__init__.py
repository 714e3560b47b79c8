"""What has to hold for whatever comes in: properties, for hypothesis and for a fuzzer.

``tests.harp.test_fuzz_*`` and others try them in the test suite; ``python -m tests.fuzz TARGET``
looks for more with atheris, as long as one likes. What that found useful is kept in ``corpus``.
"""
