"""How the schema came to be what ``store/schema.py`` says; Alembic runs it when the store opens."""
