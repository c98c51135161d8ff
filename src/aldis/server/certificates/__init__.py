"""Certificates that the server gets and renews by itself (ACME, RFC 8555)."""
