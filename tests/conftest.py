"""What holds for all tests."""

from __future__ import annotations

from hypothesis import settings

# No deadline for a single example: on a busy machine of two cores it would measure the machine. The rest is as
# Hypothesis has it: random on a developer's machine, the same examples every time where CI is set.
settings.register_profile("aldis", settings.default, deadline=None)
settings.load_profile("aldis")
