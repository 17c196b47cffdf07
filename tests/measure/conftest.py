"""Fixtures of the measures' tests."""

from pathlib import Path
from typing import Any

import pytest

from ingle.engine.language_model import LanguageModel
from ingle.home.place import Home
from tests.measure.models import tiny_model


@pytest.fixture(scope="session")
def tiny_place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("measured")


@pytest.fixture(scope="session")
def tiny(tiny_place: Path) -> LanguageModel:
    return tiny_model(tiny_place)


@pytest.fixture(scope="session")
def tiny_oracle(tiny: LanguageModel, tiny_place: Path) -> Any:
    """The same weights in transformers."""
    from transformers import LlamaForCausalLM

    return LlamaForCausalLM.from_pretrained(tiny_place / "hf").eval()


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home").create()
