"""How long a test waits for what has to come."""

from __future__ import annotations

# Seconds. Far more than anything takes, also where several others want the same two cores, and less than the time-out
# of a test: a test that needs them has failed already.
PATIENCE = 45.0
# Seconds between two clients that come all the time: without a pause they take what the servers need to start.
PACE = 0.02
