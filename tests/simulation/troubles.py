"""What goes wrong in the simulation, or changes under way."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred

from harpcaller.connections import Endpoint
from harpcaller.jobs import Capacity
from tests.simulation.node import Node

if TYPE_CHECKING:
    from tests.simulation.world import World


def any_capacity(random: Random) -> Capacity:
    """Return how much may run."""
    return Capacity(random.choice([1000, 1000, 1, 2, 3]), random.choice([None, None, 1, 2]))


def kill(world: World) -> None:
    """Kill the dispatcher, or start another."""
    if world.node is None:
        world.start()
    else:
        world.bury()


def stop(world: World) -> None:
    """Tell the dispatcher to stop."""
    if world.node is not None and not world.node.is_stopping:
        for end in world.servers:
            end.excused = end.other.excused = True
        world.node.stop(world.random.choice([0.0, 1.0, 10.0]), world.random)


def break_connection(world: World) -> None:
    """Take a connection of the dispatcher away."""
    world.servers = [end for end in world.servers if end.connected]
    if world.servers:
        end = world.random.choice(world.servers)
        end.excused = end.other.excused = True
        end.cut()


def break_call(world: World) -> None:
    """Let the process of a call die, and harpd's connection with it."""
    calls = [call for harpd in world.harpds.values() for call in harpd.calls]
    if calls:
        world.random.choice(calls).die()


def close_idle(world: World) -> None:
    """Let harpds end what carries nothing."""
    for harpd in world.harpds.values():
        for connection in list(harpd.idle):
            connection.leave_idle(world.random.random() < 0.5)


def harpd_goes_or_comes(world: World) -> None:
    """Kill a harpd, or start it again."""
    harpd = world.random.choice(list(world.harpds.values()))
    harpd.is_down = not harpd.is_down
    if harpd.is_down:
        for connection in [*harpd.calls, *harpd.idle]:
            connection.die()


def change_capacity(world: World) -> None:
    """Let another number of jobs run."""
    if world.node is not None and world.node.is_ready and not world.node.is_stopping:
        world.capacity = any_capacity(world.random)
        world.watch.allow(world.capacity)
        _set_capacity(world, world.node)


def _set_capacity(world: World, node: Node) -> None:
    setting: Deferred[None] = Deferred.fromCoroutine(node.dispatcher.set_capacity(world.capacity))
    setting.addErrback(lambda failure: None if world.book.disk_has_failed else failure)


def host_goes_or_comes(world: World) -> None:
    """Take a host out of the registry, or put it back."""
    name = world.random.choice(list(world.harpds))
    if world.hosts.known.pop(name, None) is None:
        world.hosts.known[name] = world.harpds[name].host
    if world.node is not None:
        world.node.connections.hosts_changed()


def trust_anew(world: World) -> None:
    """Let the dispatcher forget all connections that it keeps."""
    if world.node is not None:
        endpoint: Endpoint = world.node.endpoint
        world.node.connections.use(endpoint)


TROUBLES = [
    kill,
    kill,
    stop,
    break_connection,
    break_connection,
    break_call,
    close_idle,
    harpd_goes_or_comes,
    change_capacity,
    change_capacity,
    host_goes_or_comes,
    trust_anew,
]
"""What may happen, the frequent more than once."""
