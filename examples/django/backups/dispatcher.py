"""The dispatcher, as this process knows it."""

from functools import cache

from django.conf import settings

import harp


@cache
def dispatcher() -> harp.HarpCaller:
    """Return the client that all threads of the process share."""
    return harp.HarpCaller(
        settings.HARP_HOST,
        settings.HARP_PORT,
        ca_file=settings.HARP_CA_FILE,
        token=settings.HARP_TOKEN,
        connect_timeout=5,  # somebody waits for the page
        reply_timeout=10,
    )
