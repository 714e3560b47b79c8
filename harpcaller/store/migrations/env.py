"""What Alembic runs to migrate, on the connection that it was given and in its transaction."""

from alembic import context

from harpcaller.store.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    # SQLite can't alter a column in place.
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
