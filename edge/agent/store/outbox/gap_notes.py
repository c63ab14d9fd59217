"""Gaps that were noted and are not yet records: neighbours of one reason become one."""

from dataclasses import replace

from edge.model.records import Gap


class GapNotes:
    """See the module. Nothing here locks; the outbox's lock guards it."""

    def __init__(self) -> None:
        self._gaps: list[Gap] = []

    def __bool__(self) -> bool:
        """Say whether there is any."""
        return bool(self._gaps)

    def note(self, gap: Gap) -> None:
        """Add a gap; it becomes part of the one before it of its stream when nothing lies between them."""
        for place in range(len(self._gaps) - 1, -1, -1):
            old = self._gaps[place]
            if (old.stream, old.epoch, old.reason) == (gap.stream, gap.epoch, gap.reason):
                if old.last is not None and old.last + 1 == gap.first:
                    self._gaps[place] = replace(old, last=gap.last, last_ms=gap.last_ms)
                    return
                break
        self._gaps.append(gap)

    def take(self) -> list[Gap]:
        """Return all, and forget them."""
        taken, self._gaps = self._gaps, []
        return taken
