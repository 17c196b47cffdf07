"""One home for all tests that need a real model, never the user's own: the model is pulled once and kernels are compiled once, whichever
process of the tests needs them first. What is said and recorded is each process's own.

It lies where INGLE_TEST_HOME says, else in the user's cache folder. Both variables are set before any test imports a kernel.
"""

import os
import signal
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import pytest

from ingle.home.place import Home, find_home
from tests.homes import lent

pytest_plugins = ["tests.databases", "tests.timetable"]
if find_spec("hypothesis"):  # Flower's environment has none
    pytest_plugins.append("tests.examples")


def _test_home() -> Path:
    if chosen := os.environ.get("INGLE_TEST_HOME"):
        return Path(chosen).absolute()
    caches = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(caches) / "ingle-tests"


signal.signal(signal.SIGINT, signal.default_int_handler)  # what is begun in the background inherits that Ctrl-C means nothing
if "PYTEST_XDIST_WORKER" in os.environ:  # another process has the other core: OpenMP's threads would wait for each other, spinning
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # One process learns on a machine at a time, by a lock in the folder for temporary files: its tests would wait for each other.
    tempfile.tempdir = os.environ["TMPDIR"] = str(Path(tempfile.gettempdir()) / f"ingle-{os.environ['PYTEST_XDIST_WORKER']}")
    Path(tempfile.tempdir).mkdir(exist_ok=True)
os.environ["INGLE_HOME"] = str(_test_home())
os.environ.pop("INGLE_DATABASE_URL", None)
os.environ.setdefault("INGLE_KERNEL_CACHE", str(_test_home() / "cache" / "jit"))


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish() -> None:
    """Nothing of a run is left behind, however it ends."""
    if servers := sys.modules.get("tests.serve.servers"):
        servers.end_all()


@pytest.fixture(scope="session")
def smollm2_home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home that keeps smollm2, ready to answer. Tests may read it and talk with it, and must leave what is kept as it is."""
    from ingle.app.bringing import bring
    from ingle.cli.progress import Lines
    from ingle.core.errors import PullError
    from ingle.home.fetch import WrongBytes

    home = find_home()
    try:
        bring(home, "smollm2", Lines())
    except WrongBytes:
        raise
    except PullError as error:
        pytest.skip(f"smollm2 is not kept in {home.root}, and can't be pulled: {error}")
    return lent(home, tmp_path_factory.mktemp("smollm2") / "home")


@pytest.fixture(scope="session")
def smollm2_gguf(request: pytest.FixtureRequest) -> Path:
    """SmolLM2-135M-Instruct.Q4_1.gguf: INGLE_TEST_GGUF, else the file that the tests' home keeps."""
    if named := os.environ.get("INGLE_TEST_GGUF"):
        return Path(named)
    from ingle.home.kept import get_kept

    home: Home = request.getfixturevalue("smollm2_home")
    [path] = home.base_folder(get_kept(home, "smollm2").base).glob("*.gguf")
    return path
