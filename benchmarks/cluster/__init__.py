"""Servers that act as one: what happens when parts of them fail, and what they cost."""
