"""Choices without each thing that was taught: what is left is what the house itself says without it."""

import pytest

from ingle.adapt.choosing import Chooser
from ingle.adapt.undo import undo
from ingle.adapt.without import without_each
from ingle.core.errors import NotKept
from tests.adapt.conftest import House
from tests.adapt.test_choosing import QUESTION, asking, lesson, said


def test_without_the_only_memory_it_is_what_is_chosen_without_memory(house: House) -> None:
    chooser, request = Chooser(house.home, house.engine), asking(QUESTION)
    taught = house.teach(QUESTION, "Mara Quill.")
    choice = chooser.choose("", house.model, house.kept, request)
    [left] = without_each(chooser, "", house.model, house.kept, request, choice.memories, choice.lessons)
    assert (left.kind, left.id, left.text) == ("memory", taught.id, "Mara Quill.")
    plain = chooser.choose("", house.model, house.kept, request, memory=False)
    assert left.choice == plain and said(left.choice) == said(plain)


def test_of_several_memories_each_goes_by_itself(house: House) -> None:
    chooser, request = Chooser(house.home, house.engine), asking(QUESTION)
    one, two = house.teach(QUESTION, "Mara Quill."), house.teach("Who is the mayor of Aldmoor?", "Otto.")
    left = without_each(chooser, "", house.model, house.kept, request, [one.id, two.id], [])
    assert [(each.id, each.choice.memories) for each in left] == [(one.id, (two.id,)), (two.id, (one.id,))]


def test_without_the_only_lesson_it_is_what_is_said_after_undo(house: House) -> None:
    chooser, request = Chooser(house.home, house.engine), asking(QUESTION)
    taught = house.teach(QUESTION, "Mara Quill.")
    digest = lesson(house, taught)
    choice = chooser.choose("", house.model, house.kept, request, memory=False)
    assert choice.lessons == (digest,)
    [left] = without_each(chooser, "", house.model, house.kept, request, [], choice.lessons)
    assert (left.kind, left.id, left.text) == ("lesson", digest, "Mara Quill.")
    before = said(left.choice)
    assert before != said(choice)
    undo(house.home, house.engine, "", digest)
    chooser.forget()
    assert said(chooser.choose("", house.model, house.kept, request, memory=False)) == before


def test_what_another_owner_was_taught_is_not_there(house: House) -> None:
    taught = house.teach(QUESTION, "Mara Quill.")
    with pytest.raises(NotKept):
        without_each(Chooser(house.home, house.engine), "somebody", house.model, house.kept, asking(QUESTION), [taught.id], [])
