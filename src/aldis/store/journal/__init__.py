"""Queues that outlive the program: what a store has to send, what has arrived, and where each stream stands."""
