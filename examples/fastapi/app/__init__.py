"""An application for backups."""
