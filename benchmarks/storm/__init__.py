"""How long all clients need to be back after a server was killed."""
