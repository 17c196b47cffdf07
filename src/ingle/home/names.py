"""Names of models and deltas: a name is also a file name."""

import re

from ingle.core.errors import ConfigError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def check_name(name: str) -> str:
    """Return `name` if a model or a delta can have it.

    Raises ConfigError for anything but letters, digits, '.', '_' and '-'.
    """
    if "+" in name:
        raise ConfigError("name", "must not hold '+', which joins a model and its deltas", repr(name), "Use '-' instead.")
    if not NAME.fullmatch(name):
        rule = "must be 1 to 100 letters, digits, '.', '_' or '-', with a letter or digit first"
        raise ConfigError("name", rule, repr(name), "Choose another name.")
    return name
