"""The part of ``harp check`` that asks: the dispatcher, through it every host, and their clocks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from harp import CommunicationError, HarpCaller, HarpException
from harp.cli import certificates
from harp.cli.findings import Finding, State, of_certificate, worst
from harp.network import Address

AT_ONCE = 16
"""Hosts that are asked at the same time."""

MAX_CLOCK = 2.0
"""Seconds by which clocks may differ before that is worth a warning: logs of two machines can't be
compared any more."""


def ask_dispatcher(rpc: HarpCaller, name: str) -> tuple[list[Finding], HarpException | None]:
    """Return what the dispatcher says of itself, and why it did not."""
    subject = f"dispatcher {name}"
    before, start = time.time(), time.monotonic()
    try:
        found = rpc.server_info()
    except HarpException as error:
        return [Finding(State.ERROR, subject, str(error))], error
    took = time.monotonic() - start
    text = f"version {found['version']}, answered in {_milliseconds(took)}"
    facts = {"version": found["version"], "seconds": round(took, 4)}
    findings = [Finding(State.OK, subject, text, facts)]
    if found["time"] is None:
        return [*findings, Finding(State.SKIPPED, f"clock of {name}", "it does not tell")], None
    ahead = found["time"] - (before + took / 2)
    state = State.WARNING if abs(ahead) > MAX_CLOCK + took / 2 else State.OK
    clock = f"{_clock(ahead)} this machine's"
    return [*findings, Finding(state, f"clock of {name}", clock, {"clock": round(ahead, 3)})], None


def dispatcher_certificate(address: Address, warn_days: float) -> Finding:
    """Return what is to be said of the certificate that the dispatcher shows."""
    subject = f"certificate of {address}"
    try:
        facts = certificates.facts(certificates.fetch(address))
    except (certificates.Unreachable, ValueError) as error:
        return Finding(State.ERROR, subject, str(error))
    state, text = of_certificate(facts.begins, facts.ends, warn_days)
    return Finding(state, subject, text, {"ends": facts.ends.timestamp()})


def ask_hosts(
    rpc: HarpCaller, wanted: Sequence[str], limit: float, warn_days: float
) -> Iterator[Finding]:
    """Have the dispatcher ask hosts what they offer; look at their certificates from here.

    :param wanted: names of hosts; all that there are if none is given.
    :param limit: seconds for connecting to a host from here.
    """
    try:
        known = {each["name"]: each for each in rpc.hosts()}
    except HarpException as error:
        yield Finding(State.ERROR, "hosts", str(error))
        return
    for name in wanted:
        if name not in known:
            yield Finding(State.ERROR, f"host {name}", "the dispatcher knows no such host")
    hosts = [each for name, each in known.items() if not wanted or name in wanted]
    if not hosts and not wanted:
        yield Finding(State.WARNING, "hosts", "the dispatcher knows none")
    look = _look_at(rpc, limit, warn_days)
    with ThreadPoolExecutor(AT_ONCE) as threads:
        yield from threads.map(look, hosts)


def _look_at(
    rpc: HarpCaller, limit: float, warn_days: float
) -> Callable[[dict[str, Any]], Finding]:
    def look(host: dict[str, Any]) -> Finding:
        subject = f"host {host['name']}"
        start = time.monotonic()
        try:
            found = rpc.describe(host["name"])
        except HarpException as error:
            return Finding(State.ERROR, subject, _told(error))
        took = time.monotonic() - start
        number = len(found["procedures"])
        texts = [f"{number} {'procedure' if number == 1 else 'procedures'}, {_milliseconds(took)}"]
        states = [State.OK]
        facts = {"procedures": number, "seconds": round(took, 4), "clock": None, "ends": None}
        if found["clock"] is not None:
            facts["clock"] = round(found["clock"], 3)
            texts.append(f"{_clock(found['clock'])} the dispatcher's")
            if abs(found["clock"]) > MAX_CLOCK + took:
                states.append(State.WARNING)
        state, text, facts["ends"] = _certificate(host, limit, warn_days)
        return Finding(worst([*states, state]), subject, "; ".join([*texts, text]), facts)

    return look


def _certificate(
    host: dict[str, Any], limit: float, warn_days: float
) -> tuple[State, str, float | None]:
    """Look at a certificate from here, which may be another way than the dispatcher's."""
    try:
        address = Address(host["address"], host["port"], limit, limit)
        facts = certificates.facts(certificates.fetch(address))
    except (certificates.Unreachable, ValueError) as error:
        return State.OK, f"certificate not seen from this machine: {error}", None
    state, text = of_certificate(facts.begins, facts.ends, warn_days)
    return state, text, facts.ends.timestamp()


def _told(error: HarpException) -> str:
    kind = "the dispatcher did not answer: " if isinstance(error, CommunicationError) else ""
    return f"{kind}{error}"


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.0f} ms"


def _clock(ahead: float) -> str:
    return f"clock {abs(ahead):.2f} s {'ahead of' if ahead >= 0 else 'behind'}"
