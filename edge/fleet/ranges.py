"""Which numbers of a sequence are there: sorted, disjoint ranges, both ends included. Pure."""

from collections.abc import Iterable

Range = tuple[int, int]


def union(ranges: Iterable[Range]) -> list[Range]:
    """Return the ranges sorted, with those that touch or overlap made one.

    >>> union([(4, 6), (1, 3), (9, 9)])
    [(1, 6), (9, 9)]
    """
    found: list[Range] = []
    for first, last in sorted(ranges):
        if found and first <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(found[-1][1], last))
        else:
            found.append((first, last))
    return found


def holes(ranges: Iterable[Range], first: int, last: int) -> list[Range]:
    """Return what of `first` to `last` is in none of the ranges.

    >>> holes([(2, 3), (6, 6)], 1, 7)
    [(1, 1), (4, 5), (7, 7)]
    """
    found: list[Range] = []
    expected = first
    for begin, end in union(ranges):
        if begin > last:
            break
        if begin > expected:
            found.append((expected, begin - 1))
        expected = max(expected, end + 1)
    if expected <= last:
        found.append((expected, last))
    return found


def size(ranges: Iterable[Range]) -> int:
    """Return how many numbers are in them.

    >>> size([(1, 3), (2, 5)])
    5
    """
    return sum(last - first + 1 for first, last in union(ranges))
