"""The wheel: what is in it, and that twistd knows the daemons where nothing else is installed."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import site
import subprocess
import sys
import zipfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).parents[2]
PACKAGES = ("harp", "harpd", "harpcaller", "twisted/plugins")

# What a distribution is imported as, where that is not its own name.
IMPORTED_AS = {
    "argon2-cffi": "argon2",
    "pyOpenSSL": "OpenSSL",
    "PyYAML": "yaml",
    "libpass": "passlib",
    "zope.interface": "zope",
}


def run(*command: str, cwd: str) -> str:
    """Run a program and return what it prints."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


class WheelTests(SynchronousTestCase):
    """The one distribution of the project."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
        source = self.folder / "source"
        run("git", "clone", "--quiet", str(ROOT), str(source), cwd=str(self.folder))
        build = (*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir")
        run(*build, str(self.folder), str(source), cwd=str(self.folder))
        (self.wheel,) = self.folder.glob("*.whl")
        self.pip = pip
        self.source = source

    def test_contents(self) -> None:
        """Every module of the packages is in the wheel, with the marks for types, and no other."""
        wanted = {
            str(file.relative_to(self.source))
            for package in PACKAGES
            for file in (self.source / package).rglob("*")
            if file.suffix == ".py" or file.name == "py.typed"
        }
        with zipfile.ZipFile(self.wheel) as wheel:
            found = {name for name in wheel.namelist() if ".dist-info/" not in name}
        self.assertEqual(found, wanted)

    def test_twistd_lists_the_daemons(self) -> None:
        """In a virtual environment with the wheel and what it depends on, twistd knows both."""
        environment = self.folder / "environment"
        run(sys.executable, "-m", "venv", "--without-pip", str(environment), cwd=str(self.folder))
        python = str(environment / "bin" / "python")
        run(
            *self.pip, "--python", python, "install", "--no-deps", str(self.wheel),
            cwd=str(self.folder),
        )  # fmt: skip
        # The dependencies are borrowed from the environment that runs the tests; path files are
        # not followed there, so its own HarpCaller is not found.
        (borrowing,) = (environment / "lib").glob("python*/site-packages")
        (borrowing / "borrowed.pth").write_text("\n".join(site.getsitepackages()))
        program = "from twisted.scripts.twistd import run; run()"
        listed = run(python, "-c", program, "--help", cwd=str(self.folder))
        self.assertRegex(listed, r"(?m)^ +harpd +Run the procedures")
        self.assertRegex(listed, r"(?m)^ +harpcaller +Dispatch calls")
        where = run(python, "-c", "import harp; print(harp.__file__)", cwd=str(self.folder))
        self.assertTrue(where.startswith(str(environment)), where)


class DependencyTests(SynchronousTestCase):
    """The dependencies that the distribution names."""

    def test_named_are_imported_and_imported_are_named(self) -> None:
        """None is missing, and none is there that is not used."""
        named = set()
        for requirement in importlib.metadata.requires("harpcaller") or []:
            match = re.match(r"[A-Za-z0-9._-]+", requirement)
            assert match is not None
            if "extra ==" not in requirement:
                name = IMPORTED_AS.get(match[0], match[0].lower().replace("-", "_"))
                named.add(name)
        imported = set()
        for package in PACKAGES:
            for file in (ROOT / package).rglob("*.py"):
                for node in ast.walk(ast.parse(file.read_text())):
                    if isinstance(node, ast.Import):
                        imported |= {alias.name.partition(".")[0] for alias in node.names}
                    elif isinstance(node, ast.ImportFrom):
                        imported.add((node.module or "").partition(".")[0])
        ours = {"harp", "harpd", "harpcaller"}
        self.assertEqual(imported - ours - set(sys.stdlib_module_names), named)


class ImportTests(SynchronousTestCase):
    """What may import what."""

    def test_client_imports_no_twisted(self) -> None:
        """A program that only calls procedures does not load a reactor."""
        program = "import harp, sys; print([n for n in sys.modules if n.startswith('twisted')])"
        self.assertEqual(run(sys.executable, "-c", program, cwd=str(ROOT)), "[]\n")

    def test_zygote_stays_small(self) -> None:
        """What every call is forked from has neither Twisted nor TLS nor the wire modules."""
        program = (
            "import sys, harpd.zygote;"
            "print([n for n in ('twisted', 'OpenSSL', 'harp', 'msgspec') if n in sys.modules])"
        )
        self.assertEqual(run(sys.executable, "-c", program, cwd=str(ROOT)), "[]\n")
