"""What others may call on this machine: twistd harpd --procedures=/etc/harpd/procedures.py.

Every function that is marked with a decorator of harpd.proc can be called from outside under its
name, whatever else is defined here cannot. A call runs in a process of its own; what it prints goes
to harpd's log. Arguments and results are what JSON can carry. Where parameters have type hints, the
arguments are checked against them before anything runs.
"""

import shutil
import subprocess
from collections.abc import Iterator

from harpd.proc import Result, Secret, procedure, streaming_procedure


@procedure
def disk_usage(path: str = "/") -> dict[str, int]:
    """Return how full a file system is, in bytes.

    What it returns is the result; what it raises reaches the caller as an exception.
    """
    usage = shutil.disk_usage(path)
    return {"total": usage.total, "used": usage.used, "free": usage.free}


# After 60 seconds the call and all that it started is ended. uid and gid are a user and a group by
# name or number (gid may be a list). What is not said here is as harpd's configuration says for all
# procedures, or else there is no time limit, and a procedure runs as what harpd runs as.
@procedure(timeout=60, uid="nobody")
def host_name() -> str:
    """Return the name of this machine."""
    done = subprocess.run(["/bin/uname", "-n"], check=True, capture_output=True, text=True)
    return done.stdout.strip()


@streaming_procedure(timeout=600)
def search(path: str, word: str) -> Iterator[object]:
    """Report the lines of a file that have a word in them as they are found.

    Each value that is yielded reaches the caller at once; Result, if there is one, comes last.
    """
    found = 0
    with open(path, errors="replace") as file:
        for number, line in enumerate(file, 1):
            if word in line:
                found += 1
                yield {"line": number, "text": line.rstrip("\n")}
    yield Result({"found": found})


# Of the calls whose procedures name this lock one runs at a time on this machine; the others wait
# up to 30 seconds. The context says who calls: the login at harpd, the address, and what the
# dispatcher adds, like the job's id. A caller can't give an argument for it.
@procedure(timeout=60, lock="packages", lock_wait=30, context=True)
def refresh_packages(context: dict[str, object]) -> str:
    """Load the lists of packages again."""
    print("refreshed for", context["user"], "at", context["client"])
    done = subprocess.run(
        ["/usr/bin/apt-get", "update"], check=True, capture_output=True, text=True
    )
    return done.stdout


# What has the hint Secret stands in no log of harpd's, and is shown to nobody who looks at the job.
# This call may use 5 seconds of processor time and have 50 descriptors open.
@procedure(timeout=60, cpu=5, open_files=50)
def set_password(user: str, password: Secret) -> None:
    """Change the password of a user of this machine."""
    if not user.isalnum() or not password.isprintable():
        raise ValueError("a user is letters and digits, a password is one line")
    subprocess.run(["/usr/sbin/chpasswd"], input=f"{user}:{password}\n", text=True, check=True)
