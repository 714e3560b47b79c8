"""The daemon that runs the procedures of its machine."""
