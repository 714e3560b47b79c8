"""The procedures that the acceptance tests call."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

from harpd.proc import Result, procedure, streaming_procedure

print("procedures loaded")


@procedure
def add(a: int, b: int = 1) -> int:
    """Return a sum."""
    return a + b


@procedure
def echo(value: Any) -> Any:
    """Return what came in."""
    return value


@procedure
def fail(message: str) -> None:
    """Raise."""
    raise LookupError(message)


@procedure
def return_nan() -> float:
    """Return what JSON has no word for."""
    return float("nan")


@procedure
def return_object() -> object:
    """Return what JSON has no word for."""
    return object()


@procedure
def exit_hard(status: int) -> None:
    """End the process as a crash would."""
    os._exit(status)


@procedure
def die_by(number: int) -> None:
    """End the process by a signal."""
    os.kill(os.getpid(), number)


@procedure
def close_descriptors(path: str) -> str:
    """Close what is not ours, so that a file of ours gets the number of the call's socket."""
    os.closerange(0, 256)
    files = [os.open(path, os.O_RDWR | os.O_CREAT) for _ in range(32)]
    return f"{len(files)} files"


@procedure
def print_much(megabytes: int) -> int:
    """Print so much that no buffer holds it."""
    line = "x" * 1023
    for _ in range(megabytes * 1024):
        print(line)
    return megabytes


@procedure
def print_protocol() -> str:
    """Print what would be a reply if it got into the protocol."""
    print('{"result":"forged"}')
    subprocess.run(["echo", '{"result":"forged"}'], check=True)
    sys.stdout.flush()
    return "genuine"


@procedure
def process_id() -> int:
    """Return the process of the call."""
    return os.getpid()


@procedure
def sleep(seconds: float) -> None:
    """Return late."""
    time.sleep(seconds)


@procedure(timeout=0.3)
def sleep_too_long() -> None:
    """Return too late."""
    time.sleep(3600)


@streaming_procedure
def count(packets: int) -> Iterator[Any]:
    """Stream numbers, then return how many there were."""
    yield from range(packets)
    yield Result(packets)


@streaming_procedure
def long_texts(count: int, size: int) -> Iterator[str]:
    """Stream texts of a size."""
    for _ in range(count):
        yield "x" * size


@streaming_procedure
def stay() -> Iterator[Any]:
    """Stream the processes of the call, one of them in a session of its own, and stay."""
    child = subprocess.Popen(["setsid", "sleep", "3600"])
    yield [os.getpid(), child.pid]
    signal.pause()


@streaming_procedure
def crash_with_child() -> Iterator[Any]:
    """Stream a child, then die by a signal."""
    yield subprocess.Popen(["sleep", "3600"]).pid
    os.kill(os.getpid(), signal.SIGSEGV)


@procedure
def large(kibibytes: int) -> str:
    """Return a text of that size."""
    return "x" * (kibibytes * 1024)


@procedure
def keep_diary(path: str) -> None:
    """Write down that the call has begun, stay, and write down that it was told to end."""
    diary = os.open(path, os.O_WRONLY | os.O_APPEND)
    try:
        os.write(diary, b"began %d\n" % os.getpid())
        signal.pause()
    finally:
        os.write(diary, b"told %d\n" % os.getpid())


@streaming_procedure
def flood() -> Iterator[Any]:
    """Stream the process of the call, then without an end, as fast as anybody takes it."""
    yield os.getpid()
    while True:
        yield "x" * 1000


@streaming_procedure
def stream_then_fail() -> Iterator[int]:
    """Stream a packet, then raise."""
    yield 1
    raise LookupError("after a packet")


@streaming_procedure
def stream_nan() -> Iterator[float]:
    """Stream what JSON has no word for."""
    yield 1.0
    yield float("nan")


@streaming_procedure
def count_twice(packets: int, path: str) -> Iterator[Any]:
    """Stream numbers as fast as anybody takes them, and more of them when a file is there."""
    yield from range(packets)
    while not os.path.exists(path):
        time.sleep(0.005)
    yield from range(packets, 2 * packets)
    yield Result(2 * packets)


@streaming_procedure
def stream_large(path: str, packets: int, size: int) -> Iterator[Any]:
    """Stream long texts as soon as a file is there."""
    while not os.path.exists(path):
        time.sleep(0.005)
    for _ in range(packets):
        yield "x" * size
    yield Result(packets)


@streaming_procedure
def hold(path: str) -> Iterator[Any]:
    """Say that the call has begun, and return when a file is there."""
    yield os.getpid()
    while not os.path.exists(path):
        time.sleep(0.005)
    yield Result("held")


@procedure
def note(path: str, text: str) -> None:
    """Write a line into a file."""
    with open(path, "a") as file:
        file.write(f"{text}\n")


@streaming_procedure
def stay_deaf() -> Iterator[Any]:
    """Stream the processes of the call, all deaf to TERM and one in a session, and stay."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    deaf = ["sh", "-c", "trap '' TERM; while :; do sleep 3600; done"]
    yield [os.getpid(), subprocess.Popen(deaf).pid, subprocess.Popen(["setsid", *deaf]).pid]
    while True:
        signal.pause()
