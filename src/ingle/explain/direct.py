"""A reader that runs models in this process, for terminals and measurements. A server reads beside its other answers instead."""

from collections.abc import Callable, Sequence

from ingle.core.media import Vectors
from ingle.core.message import Request
from ingle.core.progress import Progress, silent
from ingle.engine.answer import write
from ingle.engine.language_model import AnswerPlace, LanguageModel, ReadyPrompt, places
from ingle.engine.scoring import score
from ingle.explain.cause import TOP, Nats, OutOfTime, Reader

Write = Callable[[LanguageModel, Request], str]  # returns an answer as its asker would see it: behind guards, where there are any


def _never() -> bool:
    return False


def direct_reader(stopped: Callable[[], bool] = _never, answer: Write | None = None, progress: Progress = silent) -> Reader:
    """Return the reader. `stopped`: asked before every step; when it is true, OutOfTime is raised. `answer`: None = without guards."""

    def scores(
        model: LanguageModel, tasks: Sequence[tuple[Sequence[int], Sequence[Sequence[int]]]], vectors: Vectors
    ) -> list[Sequence[Nats]]:  # fmt: skip
        found = dict[int, Sequence[Nats]]()
        for number, nats in score(model.backend, tasks, stopped, model.adapter, vectors):
            found[number] = nats
            progress("leaving out", len(found), len(tasks))
        if len(found) < len(tasks):
            raise OutOfTime
        return [found[number] for number in range(len(tasks))]

    def answers(asks: Sequence[tuple[LanguageModel, Request]]) -> list[str]:
        if answer is None:
            return _written(asks, stopped)
        texts = []
        for model, request in asks:
            if stopped():
                raise OutOfTime
            texts.append(answer(model, request))
            progress("answering without", len(texts), len(asks))
        return texts

    def look(model: LanguageModel, given: ReadyPrompt, said: Sequence[int]) -> list[AnswerPlace]:
        found = places(model.backend, given.ids, said, TOP, stopped, model.adapter, given.vectors)
        if len(found) < len(said):
            raise OutOfTime
        return found

    return Reader(scores, answers, look)


def _written(asks: Sequence[tuple[LanguageModel, Request]], stopped: Callable[[], bool]) -> list[str]:
    texts: dict[int, str] = {}
    by_model: dict[int, list[int]] = {}
    for number, (model, _) in enumerate(asks):
        by_model.setdefault(id(model), []).append(number)
    for numbers in by_model.values():
        model, requests = asks[numbers[0]][0], [asks[number][1] for number in numbers]
        texts |= {numbers[i]: text for i, text in write(model, requests, stopped)}
    if len(texts) < len(asks):
        raise OutOfTime
    return [texts[number] for number in range(len(asks))]
