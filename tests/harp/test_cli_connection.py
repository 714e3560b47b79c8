"""Tests of ``harp.cli.connection``: which dispatcher, with what."""

from __future__ import annotations

import json
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from harp.cli.connection import Connection, choose, config_file, profile_names
from harp.cli.status import Failure, Status

FILE = """\
default: panel
profiles:
  panel:
    dispatcher: rpc.example.net
    ca_file: ca.pem
    token: harp_panel
  admin:
    dispatcher: tls:rpc.example.net:3600
    cert: [admin.pem, /etc/admin.key]
    server_name: rpc
    on_behalf_of: ada
    connect_timeout: 3
    reply_timeout: 5
  here:
    dispatcher: unix:/run/harpcaller/socket
    token_file: token
"""


class ConnectionTestCase(SynchronousTestCase):
    """Chooses connections where the only file is the test's own."""

    def setUp(self) -> None:
        """There is no file yet."""
        self.folder = Path(self.mktemp()).absolute() / "harp"
        self.folder.mkdir(parents=True)
        self.file = self.folder / "config.yaml"
        self.warnings: list[str] = []

    def choose(
        self, dispatcher: str | None = None, profile: str | None = None, **environ: str
    ) -> Connection:
        """Choose by options, environment and file."""
        environ = {"XDG_CONFIG_HOME": str(self.folder.parent), **environ}
        return choose(dispatcher, profile, environ, self.warnings.append)

    def write(self, text: str, mode: int = 0o600) -> None:
        """Write the file of profiles."""
        self.file.write_text(text)
        self.file.chmod(mode)

    def mistake(self, **options: str) -> str:
        """Return what is wrong; that is wrong usage."""
        failure = self.assertRaises(Failure, self.choose, **options)
        self.assertEqual(failure.exit_code, Status.USAGE)
        return str(failure.message)


class ChoiceTests(ConnectionTestCase):
    """What comes before what."""

    def test_nothing_said(self) -> None:
        """The dispatcher of this machine."""
        self.assertEqual(self.choose(), Connection())
        self.assertEqual(repr(self.choose().open()), "<harp.HarpCaller localhost:3502>")

    def test_order(self) -> None:
        """Options come before the environment, and that before the file."""
        self.write(FILE)
        places = {"HARP_DISPATCHER": "e", "HARP_PROFILE": "here"}
        (self.folder / "token").write_text("harp_here\n")
        (self.folder / "token").chmod(0o600)
        self.assertEqual(self.choose("o", **places).dispatcher, "o")
        self.assertEqual(self.choose(None, "admin", **places).server_name, "rpc")
        self.assertEqual(self.choose(HARP_DISPATCHER="e").dispatcher, "e")
        self.assertEqual(self.choose(HARP_PROFILE="here").token, "harp_here")
        self.assertEqual(self.choose().dispatcher, "rpc.example.net")
        self.assertEqual(self.choose(HARP_DISPATCHER="", HARP_PROFILE="").token, "harp_panel")
        self.assertEqual(self.warnings, [])

    def test_token_goes_with_its_profile_alone(self) -> None:
        """A token is not sent to an address that was given without its profile."""
        self.write(FILE)
        for found in (self.choose("o"), self.choose(HARP_DISPATCHER="o")):
            self.assertEqual(found, Connection("o"))
        found = self.choose("o", "panel")
        self.assertEqual((found.dispatcher, found.token), ("o", "harp_panel"))
        found = self.choose(HARP_DISPATCHER="o", HARP_PROFILE="panel")
        self.assertEqual((found.dispatcher, found.token), ("o", "harp_panel"))

    def test_token_of_the_environment(self) -> None:
        """It comes before the token of a profile."""
        self.write(FILE)
        for options in ({}, {"profile": "panel"}, {"dispatcher": "o"}):
            self.assertEqual(self.choose(HARP_TOKEN="harp_e", **options).token, "harp_e")

    def test_profile(self) -> None:
        """All keys count; paths start at the file's folder."""
        self.write(FILE)
        wanted = Connection(
            "tls:rpc.example.net:3600",
            cert=(self.folder / "admin.pem", Path("/etc/admin.key")),
            server_name="rpc",
            on_behalf_of="ada",
            connect_timeout=3,
            reply_timeout=5,
        )
        self.assertEqual(self.choose(profile="admin"), wanted)
        self.assertEqual(self.choose(profile="panel").ca_file, self.folder / "ca.pem")
        environ = {"XDG_CONFIG_HOME": str(self.folder.parent)}
        self.assertEqual(profile_names(environ), ["panel", "admin", "here"])

    def test_place_of_the_file(self) -> None:
        """XDG_CONFIG_HOME says where, if it is an absolute path; else it is below ~/.config."""
        below_home = Path.home() / ".config/harp/config.yaml"
        for environ, file in (
            ({}, below_home),
            ({"XDG_CONFIG_HOME": ""}, below_home),
            ({"XDG_CONFIG_HOME": "x"}, below_home),
            ({"XDG_CONFIG_HOME": "/x"}, Path("/x/harp/config.yaml")),
        ):
            self.assertEqual(config_file(environ), file)

    def test_address(self) -> None:
        """Host, port, TLS and unix sockets; IPv6 in brackets where a port follows."""
        for text, told in (
            ("rpc", "rpc:3502"),
            ("rpc:1", "rpc:1"),
            ("::1", "[::1]:3502"),
            ("[::1]:1", "[::1]:1"),
            ("tls:rpc:1", "rpc:1"),
            ("unix:/run/s", "unix:/run/s"),
        ):
            self.assertEqual(repr(Connection(text).open()), f"<harp.HarpCaller {told}>")
        # A token says whether TLS is spoken: it goes nowhere without.
        Connection("tls:rpc", token="harp_x").open()
        self.assertRaises(Failure, Connection("rpc", token="harp_x").open)


class MistakeTests(ConnectionTestCase):
    """What people have to mend is told with where it stands."""

    def test_in_the_file(self) -> None:
        """Every mistake is named with its key and line; a token is never shown."""
        self.write(
            "default: pannel\nprofiles:\n  panel:\n    dispatcher: 5\n    tokn: harp_x\n"
            "  two:\n    dispatcher: a\n    token: harp_y\n    token_file: t\n    tls: maybe\n"
        )
        told = self.mistake()
        for each in (
            "default, line 1: there is no profile of this name",
            "profiles.panel.dispatcher, line 4: must be a text, not a number",
            "profiles.panel.tokn, line 5: is not a key that is known here",
            "profiles.two.token_file, line 9: stands beside token",
            "profiles.two.tls, line 10: must be true or false",
        ):
            self.assertIn(f"{self.file}: {each}", told)
        self.assertNotIn("harp_", told)

    def test_no_such_profile(self) -> None:
        """Those that there are are named; without a file there is none."""
        self.write(FILE)
        told = f"{self.file}: there is no profile nobody; those that are: panel, admin, here"
        self.assertEqual(self.mistake(profile="nobody"), told)
        self.file.unlink()
        told = f"{self.file}: can't be read: No such file or directory"
        self.assertEqual(self.mistake(profile="panel"), told)

    def test_token_file(self) -> None:
        """One that can't be read is named."""
        self.write(FILE)
        told = self.mistake(profile="here")
        self.assertEqual(told, f"token_file {self.folder}/token: No such file or directory")

    def test_open_to_others(self) -> None:
        """A file with a token that others may read is warned of, one without is not."""
        self.write(FILE, 0o644)
        self.choose(profile="admin")
        self.assertEqual(self.warnings, [])
        self.choose(profile="panel")
        (warning,) = self.warnings
        self.assertEqual(
            warning, f"{self.file} holds a token and is open to other users: chmod 600 {self.file}"
        )
        (self.folder / "token").write_text("harp_here")
        (self.folder / "token").chmod(0o640)
        self.choose(profile="here")
        self.assertIn(f"{self.folder}/token holds a token", self.warnings[-1])

    def test_what_the_client_refuses(self) -> None:
        """What can't be used is wrong usage, told with the address."""
        for options in (
            {"dispatcher": "a:b:c"},
            {"dispatcher": "unix:"},
            {"dispatcher": "rpc:99999"},
            {"dispatcher": "rpc.example.net", "ca_file": Path("/none")},
            {"dispatcher": "rpc.example.net", "token": "harp_x"},
        ):
            connection = Connection(**options)
            failure = self.assertRaises(Failure, connection.open)
            self.assertEqual(failure.exit_code, Status.USAGE)
            self.assertIn(str(options["dispatcher"]), failure.message)
            self.assertNotIn("harp_x", json.dumps(failure.told))
