"""The hosts registry: which hosts there are, where they listen, who we are there.

Whoever uses it needs the names below; where its lists come from is behind them.
"""

from harpcaller.hosts.entries import Host
from harpcaller.hosts.file import load_hosts_file
from harpcaller.hosts.registry import HostsFile, HostsRegistry, HostsScript

__all__ = ["Host", "HostsFile", "HostsRegistry", "HostsScript", "load_hosts_file"]
