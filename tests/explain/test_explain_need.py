"""What an explanation is said to take, and its refusal before the model is opened."""

import pytest

from ingle.core.headroom import NoRoom, room_for
from ingle.core.message import Request
from ingle.engine.packs import kept_source, served_size
from ingle.explain.why import why_need
from ingle.home.lean import WEIGHTS
from tests.adapt.conftest import House, house, tiny_folder
from tests.explain.tiny import TEXT, asking

__all__ = ["house", "tiny_folder"]


def test_weights_are_counted_before_they_are_packed_and_read_from_the_pack_after(house: House) -> None:
    before = served_size(house.home, house.kept, "fp32")
    assert before.packing > 0
    assert house.model.name == "tiny"
    after = served_size(house.home, house.kept, "fp32")
    packed = kept_source(house.home, house.kept).packs / "fp32" / WEIGHTS
    assert (after.weights, after.packing) == (packed.stat().st_size, 0)
    assert 0.9 < before.weights / after.weights < 1.1 and before.config == after.config


def test_longer_prompts_and_answers_take_more(house: House) -> None:
    size = served_size(house.home, house.kept)
    short, long, plain = (why_need(size, asking(text), "It is old.") for text in (TEXT, TEXT * 9, "What is old?"))
    assert long.seconds > short.seconds > plain.seconds and long.memory > short.memory
    assert why_need(size, asking(TEXT), "It is old. " * 200).seconds > short.seconds
    for prompt in ("The mill is old. What is old?", (1, 2, 3)):
        assert why_need(size, Request(prompt=prompt), "old").seconds > 0


def test_it_is_refused_where_memory_will_not_do(house: House) -> None:
    need = why_need(served_size(house.home, house.kept), asking(TEXT), "It is old.")
    room_for(need, need.memory).check()
    with pytest.raises(NoRoom, match=r"Explaining this needs about \d+ MB of memory, .* of it for Ingle itself, and 50 MB are free"):
        room_for(need, 50_000_000).check()
