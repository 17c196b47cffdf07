"""The house of one tiny model, as the tests of what acts have it."""

from tests.adapt.conftest import house, tiny_folder

__all__ = ["house", "tiny_folder"]
