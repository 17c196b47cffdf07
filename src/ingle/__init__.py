"""Ingle: a language model that you keep at home."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ingle.library import Answer, Model, OpenHome, load, open_home

__version__ = "0.1.0"
__all__ = ["Answer", "Model", "OpenHome", "__version__", "load", "open_home"]


def __getattr__(name: str) -> Any:
    """Find all of `library` when they are first asked for: every room imports this package, and few need them."""
    if name in __all__:
        import ingle.library

        return getattr(ingle.library, name)
    raise AttributeError(f"module 'ingle' has no attribute {name!r}")
