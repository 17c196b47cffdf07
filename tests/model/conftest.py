"""The real model for the tests that need one: where the environment says, or what the home keeps. Never fetched by a test."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def smollm2_gguf() -> Path:
    """SmolLM2-135M-Instruct.Q4_1.gguf: INGLE_TEST_GGUF, else a kept base in INGLE_HOME; otherwise the test is skipped."""
    named = os.environ.get("INGLE_TEST_GGUF")
    if named:
        return Path(named)
    home = os.environ.get("INGLE_HOME")
    for path in sorted(Path(home).rglob("*.gguf")) if home else []:
        if "smollm2" in path.as_posix().lower():
            return path
    pytest.skip("no SmolLM2 GGUF: set INGLE_TEST_GGUF, or INGLE_HOME to a home that keeps smollm2")
