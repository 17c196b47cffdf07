"""The homes of the terminal's tests."""

from tests.cli.conftest import tiny_folder, tiny_home

__all__ = ["tiny_folder", "tiny_home"]
