"""A home with a tiny model that has a template and answers nonsense at once, and its database."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import Engine

from ingle.app.house import open_rooms
from ingle.core.example import Example
from ingle.engine.language_model import LanguageModel
from ingle.engine.loading import Opener
from ingle.engine.threads import Cores
from ingle.home.examples import add_example
from ingle.home.kept import Kept, get_kept
from ingle.home.place import Home
from ingle.home.pull import pull
from ingle.model.export_formats import write_hf
from tests.engine.test_answer import byte_tokenizer
from tests.engine.tiny import random_checkpoint, tiny_config


@dataclass
class House:
    """A home, opened."""

    home: Home
    engine: Engine
    open: Opener

    @property
    def kept(self) -> Kept:
        return get_kept(self.home, "tiny")

    @property
    def model(self) -> LanguageModel:
        return self.open(self.home, self.kept, lambda _what, _done, _all: None)

    def teach(self, question: str, answer: str, owner: str = "", kind: str = "correction", state: str = "pending") -> Example:
        """An example, without any of the checks of the doors."""
        made = Example("", owner, "tiny", kind, question, answer, state=state)  # type: ignore[arg-type]
        return add_example(self.engine, made)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = tiny_config(vocab=260, hidden=64, mlp=96, dim=16)
    checkpoint = random_checkpoint(config)
    folder = tmp_path_factory.mktemp("tiny") / "base"
    write_hf(folder, config, lambda name: checkpoint.tensor(name).to_float32(), "float32", byte_tokenizer())
    return folder


@pytest.fixture
def house(tmp_path: Path, tiny_folder: Path) -> Iterator[House]:
    home = Home(tmp_path / "home")
    pull(home, str(tiny_folder), lambda _folder: None, "tiny")
    engine = open_rooms(home)
    yield House(home, engine, Opener("fp32", Cores(1)))
    engine.dispose()
