"""A Merkle tree as RFC 9162 has it, in SHA-256: its root, its proofs, and how they are checked.

A leaf is the hash of a row of the ledger. A tree of `count` leaves is a few complete subtrees side by side, the largest first: its peaks.
A new leaf changes only the last ones, so a root costs as little in a ledger of a million rows as in a small one. A complete subtree never
changes again, and is named by its level (it has 2 ** level leaves) and its number among those of its level.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256

EMPTY_ROOT = sha256(b"").digest()  # root of the tree without leaves

Subtree = Callable[[int, int], bytes]  # returns the hash of a complete subtree, by its level and number


@dataclass(frozen=True, slots=True)
class Node:
    """A complete subtree."""

    level: int
    number: int
    hash: bytes


@dataclass(frozen=True, slots=True)
class Peaks:
    """A tree, as far as it must be known to let it grow."""

    count: int = 0  # number of leaves
    hashes: tuple[bytes, ...] = ()  # its complete subtrees, the largest first: one for each bit of `count`

    @property
    def root(self) -> bytes:
        """The root, which stands for every leaf and their order."""
        if not self.hashes:
            return EMPTY_ROOT
        *rest, root = self.hashes
        for peak in reversed(rest):
            root = joined(peak, root)
        return root


def leaf_hash(data: bytes) -> bytes:
    """Return the hash of a leaf."""
    return sha256(b"\0" + data).digest()


def joined(left: bytes, right: bytes) -> bytes:
    """Return the hash of two subtrees together. A leaf can't stand in for them: its hash begins otherwise."""
    return sha256(b"\1" + left + right).digest()


def grown(peaks: Peaks, data: bytes) -> tuple[Peaks, tuple[Node, ...]]:
    """Return the tree with one more leaf, and the complete subtrees that this made, the leaf first."""
    made = [Node(0, peaks.count, leaf_hash(data))]
    kept = len(peaks.hashes)
    while peaks.count >> made[-1].level & 1:
        kept -= 1
        made.append(Node(made[-1].level + 1, made[-1].number >> 1, joined(peaks.hashes[kept], made[-1].hash)))
    return Peaks(peaks.count + 1, (*peaks.hashes[:kept], made[-1].hash)), tuple(made)


def peaks_of(count: int, subtree: Subtree) -> Peaks:
    """Return the tree of the first `count` leaves."""
    levels = [level for level in reversed(range(count.bit_length())) if count >> level & 1]
    return Peaks(count, tuple(subtree(level, (count >> level) - 1) for level in levels))


def inclusion_path(index: int, count: int, subtree: Subtree) -> list[bytes]:
    """Return the hashes that lead from leaf `index` (from 0) to the root of the first `count` leaves, the lowest first."""
    path, start, end = list[bytes](), 0, count
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            path.append(_hash(middle, end, subtree))
            end = middle
        else:
            path.append(_hash(start, middle, subtree))
            start = middle
    return path[::-1]


def root_of(data: bytes, index: int, count: int, path: Sequence[bytes]) -> bytes | None:
    """Return the root that a path from leaf `index` leads to; None if it can't be the path of that leaf in a tree of `count`."""
    if not 0 <= index < count:
        return None
    root, last = leaf_hash(data), count - 1
    for step in path:
        if last == 0:
            return None
        if index & 1 or index == last:
            root = joined(step, root)
            while not index & 1 and index:
                index, last = index >> 1, last >> 1
        else:
            root = joined(root, step)
        index, last = index >> 1, last >> 1
    return root if last == 0 else None


def consistency_path(old: int, count: int, subtree: Subtree) -> list[bytes]:
    """Return the hashes that show that the first `old` leaves (at least one) are still the first ones of `count`."""
    path, start, end, whole = list[bytes](), 0, count, True
    while start + old < end:
        half = _split(end - start)
        if old <= half:
            path.append(_hash(start + half, end, subtree))
            end = start + half
        else:
            path.append(_hash(start, start + half, subtree))
            start, old, whole = start + half, old - half, False
    return ([] if whole else [_hash(start, end, subtree)]) + path[::-1]


def is_consistent(old: int, old_root: bytes, count: int, root: bytes, path: Sequence[bytes]) -> bool:
    """Return whether a path shows that the tree with `old_root` only grew until it had `root`."""
    if not 0 < old <= count or old == count:
        return old == count and old_root == root and not path
    steps = [old_root, *path] if old & (old - 1) == 0 else list(path)
    if not steps:
        return False
    index, last = old - 1, count - 1
    while index & 1:
        index, last = index >> 1, last >> 1
    before = now = steps[0]
    for step in steps[1:]:
        if last == 0:
            return False
        if index & 1 or index == last:
            before, now = joined(step, before), joined(step, now)
            while not index & 1 and index:
                index, last = index >> 1, last >> 1
        else:
            now = joined(now, step)
        index, last = index >> 1, last >> 1
    return last == 0 and before == old_root and now == root


def _split(leaves: int) -> int:
    """Return the largest power of two below a number of leaves."""
    return 1 << (leaves - 1).bit_length() - 1


def _hash(start: int, end: int, subtree: Subtree) -> bytes:
    """Return the hash of the leaves from `start` to before `end`, which are a whole branch of some tree."""
    leaves = end - start
    if leaves & (leaves - 1) == 0:
        level = leaves.bit_length() - 1
        return subtree(level, start >> level)
    middle = start + _split(leaves)
    return joined(_hash(start, middle, subtree), _hash(middle, end, subtree))
