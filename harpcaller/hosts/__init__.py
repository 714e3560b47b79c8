"""The hosts registry: which hosts there are, where they listen, who we are there.

Whoever uses it needs the names below; where its lists come from is behind them.
"""

from harpcaller.hosts.entries import Host
from harpcaller.hosts.file import load_hosts_file
from harpcaller.hosts.registry import HostsRegistry
from harpcaller.hosts.sources import HostsFile, HostsScript, HostsSource

__all__ = ["Host", "HostsFile", "HostsRegistry", "HostsScript", "HostsSource", "load_hosts_file"]
