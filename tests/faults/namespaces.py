"""File systems and networks of a test's own, in namespaces of the kernel: for root only.

What can't be had here is told as a text, the reason why a test is skipped.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

_LIMIT = 20.0  # seconds for a command that takes some milliseconds


@dataclass(frozen=True)
class Holder:
    """A namespace, kept by a process that does nothing.

    :param prefix: what to write before a command that is to run in it; it becomes that command.
    """

    process: subprocess.Popen[bytes]
    prefix: list[str]

    @property
    def pid(self) -> int:
        """Return the process that keeps it."""
        return self.process.pid

    def end(self) -> None:
        """Give it up; it goes when the last process in it has."""
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


def small_disk(folder: Path, size: int) -> Holder | str:
    """Return a mount namespace in which a folder is a file system of so many bytes."""
    how = ["unshare", "--mount", "--propagation", "private"]
    script = 'mount -t tmpfs -o size="$1" none "$2" && echo ready && exec sleep 3600'
    held = _hold(how, "--mount", script, str(size), str(folder))
    if isinstance(held, Holder):  # who enters it finds himself in its root folder
        held.prefix.extend(["sh", "-c", 'cd "$0" && exec "$@"', str(folder.parent)])
    return held


def network(inner: str, outer: str, address: str, peer: str) -> Holder | str:
    """Return a network namespace with a link to this one.

    :param inner: the name of the link's end in there, and of ``outer`` out here.
    :param address: of the end in there, and ``peer`` of the one out here, in a network of /30.
    """
    script = (
        'ip link set lo up && ip link add "$1" type veth peer name "$2" netns "$5"'
        ' && ip address add "$3/30" dev "$1" && ip link set "$1" up'
        ' && nsenter --target "$5" --net ip address add "$4/30" dev "$2"'
        ' && nsenter --target "$5" --net ip link set "$2" up'
        " && echo ready && exec sleep 3600"
    )
    arguments = [inner, outer, address, peer, str(os.getpid())]
    return _hold(["unshare", "--net"], "--net", script, *arguments)


def _hold(how: list[str], kind: str, script: str, *arguments: str) -> Holder | str:
    if os.geteuid() != 0:
        return "only root can do it"
    needed = ["unshare", "nsenter", "mount" if kind == "--mount" else "ip"]
    if lacking := [program for program in needed if shutil.which(program) is None]:
        return f"there is no {lacking[0]} here"
    command = [*how, "sh", "-c", script, "sh", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    said = process.stdout.readline()
    holder = Holder(process, ["nsenter", "--target", str(process.pid), kind])
    if said != b"ready\n":
        why = process.stderr.read().decode(errors="replace").strip()
        process.stderr.close()
        holder.end()
        return f"not allowed here: {why}"
    process.stderr.close()
    return holder
