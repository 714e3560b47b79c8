"""Good configurations with as many keys as there are, near those in ``etc``."""

from __future__ import annotations

from tests.fuzz.files import SECRET

_NETWORK = """
network: {address: "*", port: 4306, certfile: cert.pem, keyfile: key.pem}
"""

HARPD = [
    _NETWORK
    + f"""
user: nobody
authentication:
  module: harpd.auth.inconfig
  users: {{panel: "plain:{SECRET}", backup: "plain:{SECRET}"}}
permissions: {{panel: [restart, "status_*"], "*": ping}}
limits: {{max_connections: 2000, max_calls: 500, max_request: 1048576, idle_time: 120}}
python: {{path: [lib]}}
defaults:
  timeout: 600
  uid: nobody
  gid: [nogroup, 4]
  address_space: 1073741824
  cpu: 300
  processes: 100
  max_packet: 65536
  umask: 022
  directory: /
  environment: {{TZ: Europe/Warsaw}}
shutdown_grace: 30
kill_grace: 5
""",
    _NETWORK + "authentication: {module: harpd.auth.passfile, file: passwd}",
]

HARPCALLER = [
    f"""
listen: ["127.0.0.1:3502", "unix:/run/harpcaller/socket:mode=660"]
insecure: false
client_ca_file: cert.pem
users:
  panel:
    tokens: ["sha256:{"4a" * 32}"]
    certificates: [panel.example.net, "sha256:{"ab" * 32}"]
    uids: [root, 33]
    groups: [applications]
    tags: [web]
    trusted: true
rules:
  - who: [panel, anonymous]
    call: [restart, "status_*"]
    hosts: ["web*", "tag:frontend"]
    arguments: {{service: [nginx, "php*", 1, 2.5, true]}}
    see: own
    cancel: [own, "tag:web"]
  - {{who: ["group:applications"], call: "*", see: all, queues: true, administer: true}}
max_connections: 10000
max_request: 1048576
request_timeout: 30
database: sqlite:///jobs.db
host_db_script: list-hosts
host_db_refresh: 900
host_db_max_loss: 0.5
default_timeout: 600
max_exec_time: 600
max_running_per_host: 10
max_age: 720
idempotency_key_life: 24
log_level: info
ca_file: cert.pem
known_certs_file: cert.pem
""",
    "hosts_file: hosts.yaml",
]

HOSTS = [
    f"""
web01.example.net:
  address: 192.0.2.11
  port: 4306
  credentials: &panel {{user: panel, password: "{SECRET}"}}
web02.example.net:
  address: 192.0.2.12
  credentials: *panel
  tags: [web, staging]
  server_name: staging.example.net
  fingerprint: ["sha256:{"ab" * 32}"]
""",
    f"- {{hostname: a, address: b, credentials: {{user: u, password: {SECRET}}}}}\n",
]

HOSTS_LINES = [
    b'{"hostname":"a","address":"b","credentials":{"user":"u","password":"%b"}}' % SECRET.encode(),
    b'{"hostname":"c","address":"b","port":1,"tags":["x"],"server_name":"x.y","fingerprint":'
    b'"sha256:%b","credentials":{"user":"u","password":"p"}}' % (b"ab" * 32),
]
