"""When all objects are looked at for garbage, with a collector that only takes notes."""

from __future__ import annotations

from aldis.server.garbage import FULL_EVERY, MANY, MIDDLE, YOUNG, Garbage


class Collector:
    """Counts objects by hand."""

    def __init__(self) -> None:
        self.young = 1000
        self.frozen = 0
        self.threshold = (700, 10, 10)
        self.log: list[str] = []

    def collect(self, generation: int = 2, /) -> int:
        self.log.append("all" if generation == 2 and not self.frozen else "young")
        return 0

    def freeze(self) -> None:
        self.frozen, self.young = self.frozen + self.young, 0

    def unfreeze(self) -> None:
        self.frozen, self.young = 0, self.frozen + self.young

    def blocks(self) -> int:
        return self.frozen + self.young

    def get_threshold(self) -> tuple[int, int, int]:
        return self.threshold

    def set_threshold(self, first: int, second: int, third: int, /) -> None:
        self.threshold = (first, second, third)


def started(collector: Collector) -> Garbage:
    garbage = Garbage(collector, collector.blocks)
    garbage.start(100.0)
    assert collector.log == ["all"]
    assert collector.frozen == 1000
    assert collector.threshold[:2] == (YOUNG, MIDDLE)
    assert collector.threshold[2] > 100_000
    collector.log.clear()
    return garbage


def test_what_is_older_than_a_second_is_not_looked_at_before_it_is_due() -> None:
    collector = Collector()
    garbage = started(collector)
    for second in range(1, 600):
        collector.young += 100
        garbage.tick(100.0 + second)
    assert set(collector.log) == {"young"}
    assert collector.young == 0
    garbage.tick(100.0 + FULL_EVERY)
    assert collector.log[-1] == "all"
    garbage.tick(101.0 + FULL_EVERY)
    assert collector.log[-1] == "young"


def test_all_is_looked_at_earlier_when_there_are_many_more_objects() -> None:
    collector = Collector()
    garbage = started(collector)
    collector.young += 1000 + MANY
    garbage.tick(101.0)
    assert collector.log == ["young"]
    collector.young += 1
    garbage.tick(102.0)
    assert collector.log == ["young", "all"]
    garbage.tick(103.0)
    assert collector.log == ["young", "all", "young"]
