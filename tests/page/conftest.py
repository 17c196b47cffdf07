"""Homes and servers for the tests of the page, as those of the API have them."""

from tests.serve.conftest import kept_home, long_folder, served_home, server, smollm2_server

__all__ = ["kept_home", "long_folder", "served_home", "server", "smollm2_server"]
