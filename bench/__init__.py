"""How fast it is, each figure beside what this machine can do at most: ``python -m bench``."""
