"""Backups that people start, watch and cancel."""
