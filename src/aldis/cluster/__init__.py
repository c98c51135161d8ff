"""The nodes of a cluster: the table of who is online, which they share in a Redis 7 or Valkey, and their leases.

It carries out what `hub.cluster` says. It knows no socket of a client and no HTTP: `server` is above it.
"""
