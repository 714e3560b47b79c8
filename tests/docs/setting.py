"""What the examples run in: one deployment for all, and a folder for each page."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import harp
from harpcaller.demo.deployment import Deployment
from tests.acceptance.daemons import deploy, eventually
from tests.docs.pages import ROOT, Block

TIME_LIMIT = 120
"""Seconds after which a page's examples are taken to hang."""

TOKEN = "harp_token"

_AT_ONCE = 0.001
"""Seconds that a job must have ended ago to be forgotten."""

_REDIRECT = Path(__file__).with_name("redirect")


def deployment() -> Deployment:
    """Return the deployment of all pages, not started: it has one user, who has a token."""
    digest = hashlib.sha256(TOKEN.encode()).hexdigest()
    return deploy(users={"panel": {"tokens": [f"sha256:{digest}"], "trusted": True}})


def load(running: Deployment, blocks: list[Block]) -> None:
    """Have harpd offer the procedures of a page, and nothing be left of the pages before."""
    rpc = harp.HarpCaller("127.0.0.1", running.port)
    left = [rpc.job(job["job_id"]) for job in rpc.jobs(state=["waiting", "running"])]
    for job in left:
        job.cancel()
    for job in left:
        job.result(wait=True)
    rpc.prune(_AT_ONCE)
    text = "".join(block.text for block in blocks if block.kind == "procedures")
    if not text:
        return
    running.procedures.write_text(text)
    log, process = running.harpd.log, running.harpd.process
    seen = log.stat().st_size
    assert process is not None
    process.send_signal(signal.SIGHUP)

    def said() -> str:
        return log.read_bytes()[seen:].decode(errors="replace")

    eventually(lambda: "harpd runs with what was read" in said(), f"{blocks[0].page} is loaded")


def run(running: Deployment, page: Path) -> subprocess.CompletedProcess[str]:
    """Run what is to be run of a page, in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="harp-page-") as name:
        folder = Path(name)
        shutil.copy(running.ca_file, folder)
        # A client certificate is any that there is; no dispatcher gets to see it.
        for kind in ("pem", "key"):
            shutil.copy(running.folder / f"harpd.{kind}", folder / f"panel.{kind}")
        ports = {"3502": running.port, "4306": running.harpd_port}
        return start(page, folder, HARP_DOCS_PORTS=json.dumps(ports), HARP_TOKEN=TOKEN)


def start(page: Path, folder: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """Run what is to be run of a page.

    :param folder: where; it is the home of who does so, too.
    :param more: variables of the environment.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HARP_")}
    environment = {
        **kept,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": f"{_REDIRECT}:{ROOT}",
        "HOME": str(folder),
        "XDG_CONFIG_HOME": str(folder / ".config"),
        **more,
    }
    return subprocess.run(
        [sys.executable, "-m", "tests.docs.run_page", str(page)],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIME_LIMIT,
        check=False,
    )
