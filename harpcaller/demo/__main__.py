"""Shows HarpCaller at its main job, then ends: ``harp demo``, and ``make demo``."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path

from twisted.internet.endpoints import quoteStringArgument

import harp
from harpcaller.demo.deployment import HOST, Deployment, StartError

_LONGEST = 100
"""Bytes that the path of a unix socket may have; the kernel takes 107 (unix(7))."""


def main() -> None:
    """Run the demo."""
    parser = argparse.ArgumentParser(prog="harp demo")
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    with ExitStack() as stack:
        folder = options.folder
        if folder is None:
            temporary = tempfile.TemporaryDirectory(prefix="harp-demo-", ignore_cleanup_errors=True)
            folder = Path(stack.enter_context(temporary))
        print(f"Certificates, passwords, procedures and configurations are made in {folder}/.")
        deployment = Deployment(folder, Path(__file__).with_name("procedures.py"))
        listen_on_socket(deployment)
        stack.enter_context(deployment)
        print(f"harpd listens on port {deployment.harpd_port}, harpcaller on {deployment.port}.")
        rpc = harp.HarpCaller("127.0.0.1", deployment.port)
        show_result(rpc)
        show_stream(rpc, deployment.folder / "growing.log")
        show_exception(rpc)
        if options.keep:
            stay(deployment)
    print("\nBoth daemons have been stopped.")


def listen_on_socket(deployment: Deployment) -> None:
    """Have the dispatcher listen on a unix socket too, whose address is known beforehand."""
    path = str(deployment.folder / "socket")
    if len(os.fsencode(path)) < _LONGEST:
        listen = [f"127.0.0.1:{deployment.port}", f"unix:{quoteStringArgument(path)}:mode=600"]
        deployment.configure_harpcaller({"listen": listen})


def show_result(rpc: harp.HarpCaller) -> None:
    """Call a procedure that returns a structured result."""
    title("A procedure and its result", f'rpc.host("{HOST}").disk_usage("/")')
    job = rpc.host(HOST).disk_usage("/")
    for key, value in job.get().items():
        print(f"  {key:>6}: {value}")
    show_status(job)


def show_stream(rpc: harp.HarpCaller, file: Path) -> None:
    """Call a procedure that reports what happens while it happens."""
    title("A stream, followed live", f'rpc.host("{HOST}").follow_file({file.name!r}, 5)')
    file.touch()
    job = rpc.host(HOST, timeout=10).follow_file(str(file), 5)
    written: list[float] = []

    def write() -> None:
        with open(file, "a", buffering=1) as log:
            for number in range(1, 6):
                time.sleep(0.2)
                written.append(time.monotonic())
                log.write(f"event {number}\n")

    writer = threading.Thread(target=write)
    writer.start()
    for packet in job.follow(since=0):
        late = time.monotonic() - written[packet["line"] - 1]
        print(f"  {packet}, {1000 * late:.0f} ms after it was written")
    writer.join()
    print(f"  end result: {job.get()}")
    print(f"  recorded: {len(job.stream().all())} packets, to be replayed at any time")
    show_status(job)


def show_exception(rpc: harp.HarpCaller) -> None:
    """Call a procedure that raises."""
    title("A procedure that raises", f'rpc.host("{HOST}").restart_service("nginx")')
    job = rpc.host(HOST).restart_service("nginx")
    try:
        job.get()
    except harp.RemoteException as error:
        print(f"  {type(error).__name__}: {error}")
    show_status(job)


def show_status(job: harp.RemoteCall) -> None:
    """Print what the dispatcher knows of the job."""
    print(
        f"  job {job.id()}: {job.procedure()} on {job.host()}, arguments {job.args()},"
        f" submitted {job.submit_time()}, started {job.start_time()}, ended {job.end_time()}"
    )


def stay(deployment: Deployment) -> None:
    """Wait for Ctrl-C."""
    pid_file = deployment.folder / "harpd.pid"
    assert deployment.harpd.process is not None
    pid_file.write_text(f"{deployment.harpd.process.pid}\n")
    print(f"""
Both daemons go on. Talk to them from another terminal:

  export HARP_DISPATCHER=127.0.0.1:{deployment.port}
  harp call {HOST} disk_usage /
  harp jobs

or from Python:

  {sys.executable}
  >>> import harp
  >>> rpc = harp.HarpCaller("127.0.0.1", {deployment.port})
  >>> rpc.host("{HOST}").disk_usage("/").get()

Its procedures are in {deployment.procedures}; have them read again with

  kill -HUP $(cat {pid_file})

What the daemons log is in {deployment.harpd.log} and {deployment.harpcaller.log}.
Ctrl-C stops them.""", flush=True)  # fmt: skip
    try:
        signal.pause()
    except KeyboardInterrupt:
        print()


def title(text: str, code: str) -> None:
    """Print what comes next."""
    print(f"\n{text}\n  >>> {code}", flush=True)


if __name__ == "__main__":
    try:
        main()
        sys.stdout.flush()
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # for what is left in the buffer
        sys.exit(128 + signal.SIGPIPE)
    except StartError as error:
        print(f"{error}\nA daemon did not start; this is what it logged.", file=sys.stderr)
        sys.exit(5)  # could not be carried out, as all commands of harp have it
    except OSError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(5)
