"""The locks hold what pyproject.toml asks for, each with digests, and name no index; PyTorch's build is the machine's to choose."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
PIN = re.compile(
    r"^(?P<name>[\w.-]+)==(?P<version>[\w.+!]+)(?: ; (?P<marker>.*?))? \\\n(?P<digests>(?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", re.M
)
ASKED = {
    "run": PROJECT["project"]["dependencies"],
    "test": PROJECT["project"]["dependencies"] + PROJECT["project"]["optional-dependencies"]["dev"],
    "install": PROJECT["dependency-groups"]["install"],
    "lock": PROJECT["dependency-groups"]["lock"],
    "federate": PROJECT["project"]["dependencies"] + PROJECT["project"]["optional-dependencies"]["federate"],
}
UNLOCKED = {"torch"}


def text(lock: str) -> str:
    return (ROOT / "locks" / f"{lock}.lock").read_text("utf-8")


def pins(lock: str) -> dict[str, dict[str, str]]:
    """By package: marker and version of each of its pins."""
    found: dict[str, dict[str, str]] = {}
    for pin in PIN.finditer(text(lock)):
        found.setdefault(canonicalize_name(pin["name"]), {})[pin["marker"] or ""] = pin["version"]
    return found


@pytest.mark.parametrize("lock", ASKED)
def test_a_lock_fits_what_is_asked_for(lock: str) -> None:
    """After a change of pyproject.toml: make lock."""
    locked = pins(lock)
    for requirement in map(Requirement, ASKED[lock]):
        if (name := canonicalize_name(requirement.name)) not in UNLOCKED:
            assert name in locked, f"make lock: {requirement} is in no line of locks/{lock}.lock"
            for version in locked[name].values():
                assert Version(version) in requirement.specifier, f"make lock: {requirement}, and the lock has {version}"


@pytest.mark.parametrize("lock", ASKED)
def test_a_lock_holds_pins_with_digests_and_nothing_else(lock: str) -> None:
    rest = re.sub(r"^#.*\n", "", PIN.sub("", text(lock)), flags=re.M)
    assert not rest.strip(), f"locks/{lock}.lock has more than pins: {rest[:200]}"
    assert not re.search(r"://|--(?:extra-)?index|--find-links|--trusted-host", text(lock))
    assert not UNLOCKED & pins(lock).keys() and not any(name.startswith("nvidia-") for name in pins(lock))


def test_the_locks_agree() -> None:
    tested = pins("test")
    for lock in ("run", "install", "lock"):
        for name, versions in pins(lock).items():
            assert set(versions.values()) <= set(tested.get(name, versions).values()), f"{name}: what runs is not what is tested"


def test_everything_that_runs_is_tested() -> None:
    assert pins("run").keys() <= pins("test").keys()


@pytest.mark.parametrize(
    ("target", "lock"), [("run", "run"), ("test", "test"), ("venv", "install"), ("lock", "lock"), ("federate", "federate")]
)
def test_make_installs_from_the_lock(target: str, lock: str) -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    recipe = re.search(rf"^\$\(VENV\)/\.stamp-{target}:.*\n((?:[\t#].*\n)+)", makefile, re.M)
    assert recipe and f"$(LOCKED) locks/{lock}.lock" in recipe[1]
    assert re.search(r"^LOCKED := \$\(PIP\) --require-hashes", makefile, re.M)
    assert "pip install" not in re.sub(r"^PIP := .*", "", makefile, flags=re.M), "what is installed otherwise is in no lock"


def test_the_container_is_built_on_one_image_by_its_digest() -> None:
    lines = (ROOT / "docs" / "Containerfile").read_text("utf-8").splitlines()
    assert [line for line in lines if line.startswith("FROM")]
    for line in lines:
        assert not line.startswith("FROM") or re.fullmatch(r"FROM \S+:\S+@sha256:[0-9a-f]{64}", line), line
        assert "pip install" not in line or "--require-hashes" in line or "--no-deps" in line, line
