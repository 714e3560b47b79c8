"""Makes ``docs/reference/errors.md`` from the table in ``harp/errors.py``.

Run it as ``python -m docs.make_errors`` when the table has changed; a test compares the two.
"""

from __future__ import annotations

from pathlib import Path

from harp.errors import ERROR_TYPES, ErrorType

PAGE = Path(__file__).with_name("reference") / "errors.md"

_HEAD = """\
# Errors

<!-- Made by `python -m docs.make_errors` from harp/errors.py; edit that. -->

Every exception of the client library is a `harp.HarpException`, and every one says three things:

- `origin`: the part of the system in which the failure arose (`harp.Origin`: client, dispatcher,
  network, harpd, procedure); None if that is not known.
- `may_have_run`: whether what was asked for may have been done all the same. Where it is False, the
  call can be made again without harm. In doubt it is True.
- `remedy`: what the person who sees it can do, a sentence; None if only the message can tell.

| exception | what happened | origin | may have run |
|---|---|---|---|
| `RemoteException` | the procedure raised; `type` is the class of that | procedure | yes |
| `RemoteError` | the call could not be carried out | by `type`, below | by `type` |
| `CancelledException` | the job was cancelled | client | yes |
| `CommunicationError` | nobody was reached, or the talk broke off | network | unless not sent |
| `UnsupportedError` | the dispatcher is too old for what was asked | client | no |

A dispatcher that knows more than version 1 of the protocol tells the `origin` of a job's error
exactly. Otherwise it is that of the table, if there is only one. `job.result()` returns these
exceptions, `job.get()` raises them.

## Types of `RemoteError`

| type | arises in | may have run | what to do |
|---|---|---|---|
"""


def page() -> str:
    """Return the page."""
    return _HEAD + "".join(map(_row, ERROR_TYPES.values()))


def _row(row: ErrorType) -> str:
    origins = ", ".join(origin.value for origin in row.origins)
    may_have_run = "yes" if row.may_have_run else "no"
    return f"| `{row.name}` | {origins} | {may_have_run} | {row.remedy} |\n"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
