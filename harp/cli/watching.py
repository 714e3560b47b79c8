"""Jobs watched to their ends: what they give is printed, and on a terminal what they wait for."""

from __future__ import annotations

from collections.abc import Sequence

from harp import RemoteCall
from harp.cli.output import Output
from harp.cli.printing import Watch
from harp.cli.reading import Start


def watch(output: Output, jobs: Sequence[RemoteCall], start: Start | None, where: str = "") -> None:
    """Print what jobs give until all of them have ended.

    :param start: which packets are to be printed first, None if none at all.
    :param where: the host on which the job runs, if that is known.
    :raises Failure: if the only job has no result.
    :raises click.exceptions.Exit: if one of several has none; the first of them counts.
    """
    kind: type[Watch] = Watch
    if output.is_live:
        from harp.cli.live import LiveWatch  # with rich, which takes long to load

        kind = LiveWatch
    watched = kind(output, jobs, start, where)
    try:
        watched.run()
    except KeyboardInterrupt:
        watched.tell_how_to_go_on()
        raise
    watched.end()
