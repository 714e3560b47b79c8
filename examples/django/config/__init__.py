"""The project: its settings, URLs and WSGI application."""
