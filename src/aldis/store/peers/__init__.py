"""Peers of a store: when to connect to one, whom to let in, which key and which ICE servers count."""
