"""Shows HarpCaller at its main job, then ends; with --keep it stays until Ctrl-C."""

from __future__ import annotations

import shutil
import signal
import sys
import threading
import time
from pathlib import Path

import harp
from harpcaller.demo.deployment import HOST, Deployment

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "demo-run"


def main() -> None:
    """Run the demo."""
    keep = "--keep" in sys.argv[1:]
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    shutil.rmtree(FOLDER, ignore_errors=True)
    print(f"Certificates, passwords, procedures and configurations are made in {FOLDER.name}/.")
    with Deployment(FOLDER, Path(__file__).with_name("procedures.py")) as deployment:
        print(f"harpd listens on port {deployment.harpd_port}, harpcaller on {deployment.port}.")
        rpc = harp.HarpCaller("127.0.0.1", deployment.port)
        show_result(rpc)
        show_stream(rpc, FOLDER / "growing.log")
        show_exception(rpc)
        if keep:
            stay(deployment)
    print("\nBoth daemons have been stopped.")


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
    print(f"""
Both daemons go on. Talk to them from another terminal:

  {sys.executable}
  >>> import harp
  >>> rpc = harp.HarpCaller("127.0.0.1", {deployment.port})
  >>> job = rpc.host("{HOST}").disk_usage("/")
  >>> job.get()

What they log is in {FOLDER.name}/harpd.log and {FOLDER.name}/harpcaller.log.
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
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
