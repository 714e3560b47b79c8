"""Tests of ``harp.errors``."""

from __future__ import annotations

import pickle

from twisted.trial.unittest import SynchronousTestCase

import harp
from docs import make_errors
from harp import errors
from harp.errors import (
    ERROR_TYPES,
    CancelledException,
    CommunicationError,
    ErrorType,
    HarpException,
    LocalProtocolError,
    Origin,
    RemoteError,
    RemoteException,
    RemoteProtocolError,
)

# The types of protocol.md, by where they may arise.
FROM_HARPD = {
    "not_permitted",
    "limit_exceeded",
    "parse_error",
    "invalid_protocol",
    "invalid_request",
    "auth_error",
    "no_such_procedure",
    "procedure_loading_error",
    "invalid_argument_list",
    "timeout",
    "system_error",
    "invalid_message",
    "shutdown",
    "killed",
    "locked",
}
FROM_DISPATCHER = {
    "not_authenticated",
    "not_allowed",
    "parse_error",
    "invalid_protocol",
    "invalid_request",
    "invalid_jobid",
    "os_error",
    "network_error",
    "protocol_error",
    "timeout",
    "unknown_host",
    "missing_result",
    "closed",
    "ssl",
    "shutdown",
}

# With these nobody can say that the procedure did not start, so nothing may be retried.
IN_DOUBT = {
    "invalid_request",
    "invalid_message",
    "killed",
    "limit_exceeded",
    "timeout",
    "shutdown",
    "closed",
    "protocol_error",
    "missing_result",
    "os_error",
}


class TableTests(SynchronousTestCase):
    """The table names every failure once."""

    def test_types_of_the_protocol(self) -> None:
        """The table has the types of protocol.md and of its extensions, and no other."""
        self.assertEqual(set(ERROR_TYPES), FROM_HARPD | FROM_DISPATCHER)

    def test_names_are_unique(self) -> None:
        """No row hides another of the same name, and each is found by its own."""
        rows = [row for row in vars(errors).values() if isinstance(row, ErrorType)]
        self.assertEqual(len(rows), len(ERROR_TYPES))
        for row in rows:
            self.assertIs(ERROR_TYPES[row.name], row)

    def test_rows_are_whole(self) -> None:
        """Each row says where it arises and what to do, in a sentence."""
        for row in ERROR_TYPES.values():
            self.assertTrue(row.origins, row.name)
            self.assertRegex(row.remedy, r"^[A-Z].{20,}\.$", row.name)

    def test_origins(self) -> None:
        """A type that only one of the parts sends has no other origin."""
        for name in FROM_HARPD - FROM_DISPATCHER:
            self.assertNotIn(Origin.DISPATCHER, ERROR_TYPES[name].origins, name)
        for name in FROM_DISPATCHER - FROM_HARPD:
            self.assertNotIn(Origin.HARPD, ERROR_TYPES[name].origins, name)

    def test_may_have_run(self) -> None:
        """A failure is certain to have come before the procedure started, or in doubt."""
        self.assertEqual({row.name for row in ERROR_TYPES.values() if row.may_have_run}, IN_DOUBT)


class PageTests(SynchronousTestCase):
    """``docs/reference/errors.md`` is made from the table."""

    def test_page_is_what_the_table_says(self) -> None:
        """The page has been made again since the table changed, and has every row."""
        self.assertEqual(
            make_errors.PAGE.read_text("utf-8"),
            make_errors.page(),
            "run python -m docs.make_errors",
        )
        for row in ERROR_TYPES.values():
            self.assertIn(f"| `{row.name}` |", make_errors.page())
            self.assertIn(row.remedy, make_errors.page())

    def test_page_has_every_exception(self) -> None:
        """Each exception that the library raises is on the page."""
        for name in harp.__all__:
            kind = getattr(harp, name)
            if isinstance(kind, type) and issubclass(kind, harp.HarpException):
                self.assertIn(
                    f"`{name}`" if kind is not HarpException else "harp.", make_errors.page()
                )


class CauseTests(SynchronousTestCase):
    """Each exception says where it arose, and whether the procedure may have run."""

    def test_remote_error(self) -> None:
        """A RemoteError says what its row says; the origin only where the row has one."""
        for row in ERROR_TYPES.values():
            error = RemoteError(row.name, "M")
            self.assertIs(error.may_have_run, row.may_have_run)
            self.assertIs(error.origin, row.origins[0] if len(row.origins) == 1 else None)
            self.assertEqual(error.remedy, row.remedy)

    def test_what_is_known_better(self) -> None:
        """What somebody knows better than the table wins."""
        error = RemoteError("timeout", "M", None, Origin.HARPD, False)
        self.assertEqual((error.origin, error.may_have_run), (Origin.HARPD, False))

    def test_unknown_type(self) -> None:
        """A type that is not in the table may come from anywhere, and is in doubt."""
        error = RemoteError("new_one", "M")
        self.assertEqual((error.origin, error.may_have_run, error.remedy), (None, True, None))

    def test_the_others(self) -> None:
        """What is not a RemoteError has one cause each."""
        for error, origin, may_have_run in [
            (RemoteException("ValueError", "M"), Origin.PROCEDURE, True),
            (CancelledException("M"), Origin.CLIENT, True),
            (CommunicationError("M"), Origin.NETWORK, True),
            (CommunicationError("M", may_have_run=False), Origin.NETWORK, False),
            (RemoteProtocolError(errors.PROTOCOL_ERROR, "M"), Origin.NETWORK, True),
            (harp.UnsupportedError("M"), Origin.CLIENT, False),
        ]:
            self.assertEqual((error.origin, error.may_have_run), (origin, may_have_run), error)
            self.assertRegex(error.remedy or "None.", r"^[A-Z].*\.$", error)


class ExceptionTests(SynchronousTestCase):
    """What the client raises."""

    def test_tree(self) -> None:
        """Every exception of the client is caught by its base."""
        for kind in (
            CommunicationError,
            CancelledException,
            RemoteException,
            RemoteError,
            LocalProtocolError,
        ):
            self.assertTrue(issubclass(kind, HarpException))
        self.assertTrue(issubclass(RemoteProtocolError, CommunicationError))
        self.assertFalse(issubclass(RemoteError, CommunicationError))
        self.assertFalse(issubclass(RemoteException, RemoteError))

    def test_remote_failures(self) -> None:
        """Type, message and data are attributes; the text has the first two."""
        for kind in (RemoteException, RemoteError):
            error = kind("timeout", "too slow", {"limit": 60})
            self.assertEqual(
                (error.type, error.message, error.data), ("timeout", "too slow", {"limit": 60})
            )
            self.assertEqual(str(error), "timeout: too slow")
            self.assertIsNone(kind("timeout", "too slow").data)

    def test_pickle(self) -> None:
        """An exception can be passed to another process with all that it holds."""
        for error in (
            RemoteException("ValueError", "no", {"class": "ValueError"}),
            RemoteError("timeout", "too slow"),
            RemoteProtocolError(errors.PROTOCOL_ERROR, "not JSON"),
            CommunicationError("web01:3502: can't connect"),
            CommunicationError("web01:3502: can't connect", may_have_run=False),
            RemoteError("timeout", "too slow", [1], Origin.HARPD, False),
        ):
            copy = pickle.loads(pickle.dumps(error))
            self.assertIs(type(copy), type(error))
            self.assertEqual(vars(copy), vars(error))
            self.assertEqual(str(copy), str(error))
