"""Folders that are registries: names, titles that are read as text, and what is said of a name that is not there."""

import subprocess
import sys

import pytest

from ingle.core import registry
from ingle.core.errors import ConfigError


def test_titles_are_read_without_importing_what_they_are_of() -> None:
    program = "import sys; from ingle.core.registry import titles; print(len(titles('ingle.tuning.methods')), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(len(registry.names("ingle.tuning.methods"))), "False"]


def test_a_name_that_is_not_there_is_said_with_the_nearest() -> None:
    assert registry.find("ingle.gate.checks", "bits", "policy").__name__ == "ingle.gate.checks.bits"
    with pytest.raises(ConfigError, match=r"^policy must be one of .*bits.*, not bist$"):
        registry.find("ingle.gate.checks", "bist", "policy")
    with pytest.raises(ConfigError, match=r"^There is no check bist\. Did you mean bits\?$"):
        registry.find("ingle.gate.checks", "bist", "policy", "There is no check bist", "")
    assert registry.did_you_mean("zzz", ["one", "two"]) == "Known: one, two." and registry.did_you_mean("a", []) == "Known: none."
