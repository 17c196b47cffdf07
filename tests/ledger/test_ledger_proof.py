"""The tree over the rows: against the RFC's own recursive definition, and proofs of real ledgers, damaged ones too."""

from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ledger_place import Place, fill

from ingle.core.errors import LedgerError, NotKept
from ingle.core.report import Event
from ingle.home.database import open_database
from ingle.ledger import nodes
from ingle.ledger.head import HEAD, Head, head_bytes, load_head, read_head, sign_head, start_head
from ingle.ledger.keys import load_ring, load_verifiers
from ingle.ledger.nodes import stored_nodes
from ingle.ledger.proof import Extract, consistency, consistency_problem, extract, inclusion_problem
from ingle.ledger.table import MIGRATIONS
from ingle.ledger.tree import EMPTY_ROOT, Peaks, consistency_path, grown, inclusion_path, is_consistent, peaks_of, root_of
from tests.examples import examples


def naive_root(leaves: list[bytes]) -> bytes:
    """MTH of RFC 9162, section 2.1.1, word for word."""
    if len(leaves) < 2:
        return sha256(b"\0" + leaves[0]).digest() if leaves else sha256(b"").digest()
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return sha256(b"\1" + naive_root(leaves[:k]) + naive_root(leaves[k:])).digest()


def naive_path(index: int, leaves: list[bytes]) -> list[bytes]:
    """PATH of section 2.1.3.1."""
    if len(leaves) == 1:
        return []
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    if index < k:
        return [*naive_path(index, leaves[:k]), naive_root(leaves[k:])]
    return [*naive_path(index - k, leaves[k:]), naive_root(leaves[:k])]


def naive_consistency(old: int, leaves: list[bytes], whole: bool = True) -> list[bytes]:
    """SUBPROOF of section 2.1.4.1."""
    if old == len(leaves):
        return [] if whole else [naive_root(leaves)]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    if old <= k:
        return [*naive_consistency(old, leaves[:k], whole), naive_root(leaves[k:])]
    return [*naive_consistency(old - k, leaves[k:], False), naive_root(leaves[:k])]


def leaves_of(count: int) -> list[bytes]:
    return [sha256(str(number).encode()).digest() for number in range(count)]


@examples(150)
@given(st.integers(1, 200), st.data())
def test_the_tree_is_that_of_the_rfc(count: int, data: st.DataObject) -> None:
    leaves = leaves_of(count)
    peaks, made = Peaks(), {}
    for leaf in leaves:
        peaks, new = grown(peaks, leaf)
        made |= {(node.level, node.number): node.hash for node in new}
    assert peaks.root == naive_root(leaves)

    def subtree(level: int, number: int) -> bytes:
        return made[level, number]

    assert peaks_of(count, subtree) == peaks
    index = data.draw(st.integers(0, count - 1))
    path = inclusion_path(index, count, subtree)
    assert path == naive_path(index, leaves)
    assert root_of(leaves[index], index, count, path) == peaks.root
    old = data.draw(st.integers(1, count))
    old_root, way = naive_root(leaves[:old]), consistency_path(old, count, subtree)
    assert way == naive_consistency(old, leaves)
    assert is_consistent(old, old_root, count, peaks.root, way)
    other = data.draw(st.integers(0, count - 1).filter(lambda one: one != index)) if count > 1 else count
    assert root_of(leaves[index], other, count, path) != peaks.root
    for wrong in (path[:-1], [*path, path[-1]] if path else [EMPTY_ROOT], path[::-1] if path != path[::-1] else [EMPTY_ROOT]):
        assert root_of(leaves[index], index, count, wrong) != peaks.root or wrong == path
    assert not is_consistent(old, sha256(old_root).digest(), count, peaks.root, way)
    assert not is_consistent(old, old_root, count, sha256(peaks.root).digest(), way)
    assert not is_consistent(old, old_root, count, peaks.root, [*way, EMPTY_ROOT])


def test_the_empty_tree() -> None:
    assert Peaks().root == EMPTY_ROOT == naive_root([])
    assert root_of(b"x", 0, 0, []) is None
    assert not is_consistent(0, EMPTY_ROOT, 1, naive_root([b"x"]), [])


def prove(place: Place, *seqs: int) -> Extract:
    engine = open_database(place.url, {"ledger": MIGRATIONS})
    try:
        return extract(engine, place.keys, seqs)
    finally:
        engine.dispose()


def problem_of(place: Place, seq: int) -> str:
    found = prove(place, seq)
    [one] = found.proven
    return inclusion_problem(one.row, one.path, found.head, load_verifiers(place.keys))


def rows(place: Place) -> list[str]:
    with place.open() as ledger:
        return [row.hash for row in ledger.read()][::-1]


def sizes(place: Place) -> dict[tuple[int, int], str]:
    engine = open_database(place.url, {"ledger": MIGRATIONS})
    with engine.connect() as connection:
        found = stored_nodes(connection)
    engine.dispose()
    return found


def stale(place: Place) -> int:
    with place.open() as ledger:
        found = ledger.verify()
    assert found.problem is None
    return found.stale


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Subtrees of 4 and 16 rows are stored, so that a small ledger has what a large one has."""
    monkeypatch.setattr(nodes, "LEVELS", 2)
    monkeypatch.setattr(nodes, "_BLOCK", 4)


@pytest.mark.usefixtures("small_blocks")
def test_every_fact_of_a_ledger_is_proven_under_the_root_of_its_head(place: Place) -> None:
    heads = list[Head]()
    for number in range(1, 24):
        fill(place, 1)
        head = read_head(place.keys, load_verifiers(place.keys))
        assert head is not None and head.seq == number
        assert head.root == naive_root([bytes.fromhex(hash_) for hash_ in rows(place)]).hex()
        heads.append(head)
    assert {level for level, _ in sizes(place)} == {2, 4} and len(sizes(place)) == 5 + 1
    found = prove(place, *range(1, 24))
    verifiers = load_verifiers(place.keys)
    for one in found.proven:
        assert inclusion_problem(one.row, one.path, found.head, verifiers) == ""
        assert inclusion_problem(replace(one.row, seq=one.row.seq % 23 + 1), one.path, found.head, verifiers)
        assert inclusion_problem(replace(one.row, facts="{}"), one.path, found.head, verifiers)
        assert inclusion_problem(one.row, one.path[1:], found.head, verifiers)
        assert inclusion_problem(one.row, (*one.path[:-1], "zz"), found.head, verifiers)
    engine = open_database(place.url, {"ledger": MIGRATIONS})
    for old in heads:
        head, path = consistency(engine, place.keys, old.seq)
        assert consistency_problem(old, head, path, verifiers) == ""
        if old.seq < head.seq:
            assert consistency_problem(old, head, [*path, path[-1]], verifiers)
            assert consistency_problem(head, old, path, verifiers)
    with pytest.raises(NotKept, match="facts 1 to 23"):
        consistency(engine, place.keys, 24)
    engine.dispose()
    assert stale(place) == 0


@pytest.mark.usefixtures("small_blocks")
def test_stored_subtrees_that_are_lost_or_damaged_are_made_again(place: Place) -> None:
    fill(place, 21)
    whole = sizes(place)
    place.sql(f"UPDATE ledger_nodes SET hash = '{'0' * 64}' WHERE level = 2 AND number = 1")
    assert stale(place) == 1
    assert problem_of(place, 2) == ""  # its path goes through the damaged one
    assert sizes(place) == whole and stale(place) == 0
    for damage in ("DELETE FROM ledger_nodes", "UPDATE ledger_nodes SET hash = 'no hash'", "DELETE FROM ledger_nodes WHERE number = 2"):
        place.sql(damage)
        assert problem_of(place, 9) == ""
        place.sql(damage)
        fill(place, 1)  # a fact finds it out, too
        assert problem_of(place, 9) == "" and stale(place) == 0


@pytest.mark.usefixtures("small_blocks")
def test_a_head_of_an_older_ingle_stays_good_and_the_next_fact_gives_it_a_root(place: Place) -> None:
    fill(place, 9)
    [signer] = load_ring(place.keys).signers
    head = read_head(place.keys, [signer.verifier])
    assert head is not None
    old = sign_head(signer, head.seq, head.hash)
    assert set(head_bytes(old)[:-1].split(b",")) >= {b'"seq":9'} and b"root" not in head_bytes(old)
    start_head(place.keys, old)
    place.sql("DELETE FROM ledger_nodes")
    with place.open() as ledger:
        assert ledger.verify(old).problem is None
    with pytest.raises(LedgerError, match="older Ingle, without a root"):
        prove(place, 3)
    fill(place, 1)
    assert problem_of(place, 3) == "" and stale(place) == 0
    with place.open() as ledger:
        assert ledger.verify(old).problem is None


@pytest.mark.usefixtures("small_blocks")
def test_a_root_cannot_be_taken_from_a_head_or_exchanged(file_place: Place, tmp_path: Path) -> None:
    fill(file_place, 5)
    path = tmp_path / "head"
    whole = (file_place.keys / HEAD).read_bytes()[:512]
    path.write_bytes(whole)
    head = load_head(path)
    for forged in (replace(head, root=""), replace(head, root=EMPTY_ROOT.hex())):
        with file_place.open() as ledger:
            found = ledger.verify(forged).problem
        assert found is not None and "was edited" in found.what
    [signer] = load_ring(file_place.keys).signers
    with file_place.open() as ledger:
        found = ledger.verify(sign_head(signer, head.seq, head.hash, EMPTY_ROOT.hex())).problem
    assert found is not None and "another root" in found.what


@pytest.mark.usefixtures("small_blocks")
def test_a_changed_row_is_never_proven_and_facts_go_on(place: Place) -> None:
    fill(place, 9)
    place.sql("UPDATE ledger SET subject = 'forged' WHERE seq = 3")
    with pytest.raises(LedgerError, match="rows are not those that were signed"):
        prove(place, 3)
    assert problem_of(place, 8) == ""
    place.sql("DELETE FROM ledger_nodes")
    fill(place, 2)  # no root can be made over what was changed; what happens is recorded all the same
    with pytest.raises(LedgerError, match="without a root"):
        prove(place, 8)
    with place.open() as ledger:
        found = ledger.verify().problem
    assert found is not None and found.seq == 3


@pytest.mark.usefixtures("small_blocks")
def test_two_writers_a_rotation_and_a_loss_keep_the_tree(place: Place) -> None:
    with place.open() as one, place.open() as other:
        for number in range(14):
            (one, other)[number % 2].append(Event("pull", "m", {"n": number}))
        one.rotate()
        other.append(Event("pull"))
        behind = (place.keys / HEAD).read_bytes()
        for _ in range(5):
            one.append(Event("pull"))
    (place.keys / HEAD).write_bytes(behind)  # as after kills between commit and head
    fill(place, 1)
    assert [problem_of(place, seq) for seq in (1, 14, 15, 16, 23)] == [""] * 5 and stale(place) == 0
    place.sql("DELETE FROM ledger WHERE seq > 20")
    with place.open() as ledger:
        ledger.accept_loss()
    assert problem_of(place, 20) == problem_of(place, 21) == "" and stale(place) == 0


def test_numbers_that_are_no_facts(file_place: Place) -> None:
    with pytest.raises(LedgerError, match="no signed head"):
        prove(file_place, 1)
    fill(file_place, 3)
    for seq in (0, -1, 4):
        with pytest.raises(NotKept, match=f"no fact {seq}"):
            prove(file_place, seq)
