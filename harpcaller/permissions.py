"""Who may do what: the one place that decides, for every kind of request.

The rules are read in `harpcaller.rules`, what they cover is said in `harpcaller.grants`. That
nothing is answered before it was decided here, and gets into the log, is `harpcaller.api`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, NamedTuple

from harp import errors
from harp.wire import dispatcher as wire
from harpcaller.grants import Grants, People, grants_of, has_any
from harpcaller.hosts import Host
from harpcaller.identities import Identity
from harpcaller.refusal import RefusedError
from harpcaller.rules import Calls, Rule


class JobOf(NamedTuple):
    """A decision that depends on a job: the request is allowed if it is a job of these."""

    job_id: str
    people: People

    def covers(self, submitter: str | None, on_behalf_of: str | None) -> bool:
        """Say whether it is, by who submitted the job and for whom."""
        return self.people is None or submitter in self.people or on_behalf_of in self.people


Decision = bool | JobOf


class Permissions:
    """What is allowed to whom.

    :param lookup: finds a host by its name.
    :param rules: None if all is allowed to everybody.
    """

    def __init__(
        self, lookup: Callable[[str], Host | None], rules: Sequence[Rule] | None = None
    ) -> None:
        self._lookup = lookup
        self.use(rules)

    def use(self, rules: Sequence[Rule] | None) -> None:
        """Put other rules into force, at once for all requests to come."""
        self._rules = rules
        self._known: dict[object, Grants] = {}
        self._everything = Grants(self._lookup, (Calls(("*",)),), None, None, True, True)

    def grants(self, identity: Identity) -> Grants:
        """Return all that somebody may do; who acts for another does so by the own permissions."""
        if self._rules is None:
            return self._everything
        key = identity.name, identity.groups, identity.tags  # as few as there are users
        if key not in self._known:
            self._known[key] = grants_of(identity, self._rules, self._lookup)
        return self._known[key]

    def decide(self, identity: Identity, request: wire.Request) -> Decision:
        """Say whether a request is allowed, or on what that depends.

        A kind of request of which nothing is said here is allowed to nobody.
        """
        kind = REQUESTS.get(type(request))
        if kind is None or self._rules is None:
            return kind is not None
        return kind.decide(self.grants(identity), request)


def not_allowed(identity: Identity, request: wire.Request) -> RefusedError:
    """Return what somebody is told whose request is refused."""
    kind = REQUESTS.get(type(request))
    action = type(request).__name__ if kind is None else kind.action
    who = "nobody in particular" if identity.name is None else identity.name
    return RefusedError(errors.NOT_ALLOWED, f"no rule allows this to {who}: {action}")


@dataclass(frozen=True)
class Kind:
    """What there is to know of a kind of request.

    :param action: its name in the log, which is its key on the wire.
    :param decide: says whether a request is allowed to somebody.
    :param is_audited: whether the log tells of each, and not only of those that were refused.
    :param job_id: returns which job it is about; None if it is not about one.
    """

    action: str
    decide: Callable[[Grants, Any], Decision]
    is_audited: bool = False
    job_id: Callable[[Any], str] | None = None


def _about_job(key: str, people: Callable[[Grants], People], is_audited: bool = False) -> Kind:
    job_id = attrgetter(key)

    def decide(grants: Grants, request: wire.Request) -> Decision:
        whose = people(grants)
        return has_any(whose) and JobOf(job_id(request), whose)

    return Kind(key, decide, is_audited, job_id)


def _seen(key: str) -> Kind:
    return _about_job(key, lambda grants: grants.sees)


def _administered(key: str) -> Kind:
    return Kind(key, lambda grants, _: grants.administers, is_audited=True)


def _may_call(grants: Grants, call: wire.Call) -> bool:
    return grants.may_call(call.host, call.procedure, call.arguments)


REQUESTS: Mapping[type[wire.Request], Kind] = {
    wire.Call: Kind("call", _may_call, is_audited=True),
    wire.Cancel: _about_job("cancel", lambda grants: grants.cancels, is_audited=True),
    wire.GetStatus: _seen("get_status"),
    wire.GetResult: _seen("get_result"),
    wire.FollowStream: _seen("follow_stream"),
    wire.ReadStream: _seen("read_stream"),
    wire.ServerInfo: Kind("server_info", lambda grants, _: grants.allows_something),
    wire.ListJobs: Kind("list_jobs", lambda grants, _: has_any(grants.sees)),
    wire.ListQueues: Kind("list_queues", lambda grants, _: grants.queues),
    wire.ListQueue: Kind("list_queue", lambda grants, _: grants.queues),
    wire.CancelQueue: _administered("cancel_queue"),
    wire.ListHosts: Kind("list_hosts", lambda grants, _: grants.administers or bool(grants.calls)),
    wire.RefreshHosts: _administered("refresh_hosts"),
    wire.ListProcedures: Kind(
        "list_procedures", lambda grants, asked: grants.shows_host(asked.list_procedures)
    ),
    wire.PruneJobs: _administered("prune_jobs"),
    wire.Reload: _administered("reload"),
    wire.Stop: _administered("stop"),
}
"""All kinds of requests. What is not here is refused."""
