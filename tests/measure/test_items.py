"""The parts: by document, for ever the same, never overlapping."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from ingle.measure.data_sets import Groups, Text, draw_shots, part, part_of


def texts(groups: list[str]) -> list[Text]:
    return [Text(f"id{i}", group, "") for i, group in enumerate(groups)]


@given(st.lists(st.sampled_from([f"document {i}" for i in range(12)]), max_size=60), st.floats(0, 1))
def test_no_document_is_in_both_parts_and_none_is_lost(groups: list[str], share: float) -> None:
    items = texts(groups)
    training, held_out = part(items, "train", share), part(items, "held_out", share)
    assert sorted(item.id for item in [*training, *held_out]) == sorted(item.id for item in items)
    assert not {item.group for item in training} & {item.group for item in held_out}


def test_the_share_is_about_what_is_asked_and_the_place_is_fixed() -> None:
    names = [f"document {i}" for i in range(4000)]
    held_out = [name for name in names if part_of(name, 0.25) == "held_out"]
    assert 900 < len(held_out) < 1100
    # What is trained on today must not be measured on tomorrow, so these must never change.
    assert held_out[:5] == FIRST_HELD_OUT
    assert all(part_of(name, 0.5) == "held_out" for name in held_out)  # a larger share holds a smaller one


FIRST_HELD_OUT = ["document 6", "document 14", "document 21", "document 25", "document 28"]


def test_the_first_items_are_a_sample_and_a_larger_one_goes_on() -> None:
    items = texts([str(i) for i in range(1000)])
    order = [int(item.id[2:]) for item in part(items, "held_out", 0.5)]
    assert order != sorted(order)
    assert [item.id for item in part(list(reversed(items)), "held_out", 0.5)] == [f"id{i}" for i in order]
    assert 350 < sum(order[:100]) / 100 < 650


def test_shots_are_of_other_documents_and_depend_on_the_seed_only() -> None:
    items = texts([str(i // 3) for i in range(300)])
    shots = draw_shots(items, 0.5, 8, seed=1)
    assert len({shot.group for shot in shots}) == 8
    assert not {shot.group for shot in shots} & {item.group for item in part(items, "held_out", 0.5)}
    assert draw_shots(list(reversed(items)), 0.5, 8, seed=1) == shots
    assert draw_shots(items, 0.5, 3, seed=1) == shots[:3]
    assert draw_shots(items, 0.5, 8, seed=2) != shots
    assert len(draw_shots(items[:3], 0.0, 8, seed=0)) == 1
    assert draw_shots(items, 0.5, 0, seed=0) == []


@given(st.lists(st.tuples(st.integers(0, 9), st.lists(st.integers(0, 12), max_size=3)), max_size=25), st.randoms(use_true_random=False))
def test_groups_are_what_is_connected_in_any_order(members: list[tuple[int, list[int]]], random: Random) -> None:
    def grouped(order: list[tuple[int, list[int]]]) -> dict[int, str]:
        groups = Groups()
        for member, shared in order:
            groups.add(f"m{member}", [f"t{text}" for text in shared])
        return {member: groups.of(f"m{member}") for member, _ in order}

    found = grouped(members)
    shuffled = list(members)
    random.shuffle(shuffled)
    assert grouped(shuffled) == found
    reach = {member: {member} for member, _ in members}
    for _ in members:
        for a, texts in members:
            for b, others in members:
                if set(texts) & set(others):
                    reach[a] |= reach[b]
    assert all((found[a] == found[b]) == (b in reach[a] or a in reach[b]) for a in found for b in found)
