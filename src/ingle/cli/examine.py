"""The checks of `ingle home doctor`. None of them ends it: it must work when things are broken."""

import importlib.util
import os
import platform
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ingle.core.errors import IngleError, counted
from ingle.core.files import how_to_install, install_command, installed, requirements
from ingle.home.place import Home

State = Literal["ok", "slow", "missing", "broken"]
LIBRARIES = ("numpy", "llvmlite", "numba", "tokenizers", "safetensors", "gguf", "jinja2", "typer", "rich", "sqlalchemy", "cryptography")
_NOT_FOR_USERS = ("", "dev", "bench")
# Remarks on an extra that is not whole.
_WITHOUT = {"learn": ": corrections are learned without it; styles, tuning, training and hybrids' corrections need it"}
_SLOW_GB_PER_S = 4.0


@dataclass(frozen=True, slots=True)
class DoctorFinding:
    """One finding about this machine."""

    about: str
    value: str
    state: State = "ok"
    cure: str = ""


def examine(home: Home, kernels: bool = False) -> Iterator[DoctorFinding]:
    """Yield each finding as soon as it is known. `kernels`: whether those that are not compiled yet are compiled, which takes a minute."""
    parts: tuple[tuple[str, Callable[[], Iterator[DoctorFinding]]], ...] = (
        ("versions", _versions),
        ("CPU", _cpu),
        ("memory", _memory),
        ("energy", _energy),
        ("home", lambda: _home(home)),
        ("models", lambda: _models(home)),
        ("ledger", lambda: _ledger(home)),
        ("extras", _extras),
        ("kernels", lambda: _kernels(home, kernels)),
    )
    for name, look in parts:
        try:
            yield from look()
        except IngleError as error:
            yield DoctorFinding(name, error.sentence, "broken", error.cure)
        except Exception as error:  # a report with a hole in it is better than none
            yield DoctorFinding(name, f"{type(error).__name__}: {error}", "broken", "Please report it.")


def _versions() -> Iterator[DoctorFinding]:
    from ingle import __version__

    yield DoctorFinding("Ingle", __version__)
    yield DoctorFinding("Python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    versions = {name: installed(name) for name in LIBRARIES}
    yield DoctorFinding("libraries", ", ".join(f"{name} {version}" for name, version in versions.items() if version))
    lacking = [name for name, version in versions.items() if not version]
    if lacking:
        yield DoctorFinding("libraries", f"without {', '.join(lacking)}", "broken", f"Run: {install_command('')}")


def _cpu() -> Iterator[DoctorFinding]:
    from ingle.core.process import usable_cores
    from ingle.kernels.cpu import describe, features

    about = describe()
    yield DoctorFinding("CPU", f"{_cpu_name()} ({about['name']}), {usable_cores()} of {os.cpu_count()} cores usable")
    flags_shown = ("avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512vnni", "avxvnni", "avx512bf16", "neon", "dotprod", "i8mm")
    yield DoctorFinding("instructions", ", ".join(name for name in flags_shown if name in features()) or "none that the kernels use")
    if about["vectors"] == "baseline":
        cure = "Everything runs, slower; a CPU from 2013 on (Haswell, Zen) has AVX2."
        yield DoctorFinding("kernel path", "neither AVX2 nor NEON", "slow", cure)
    elif about["byte dot product"] in ("portable", "maddubs"):
        cure = "Everything runs, prompts are read slower; CPUs with VNNI (x86) or I8MM (Arm) have one."
        yield DoctorFinding("kernel path", f"{about['vectors']}, without an instruction for dot products of bytes", "slow", cure)
    else:
        yield DoctorFinding("kernel path", f"{about['vectors']} with {about['byte dot product']} for dot products of bytes")


def _memory() -> Iterator[DoctorFinding]:
    try:
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
        kb = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
        yield DoctorFinding("memory", f"{kb['MemAvailable'] / 1e6:.1f} GB free of {kb['MemTotal'] / 1e6:.1f}")
    except (OSError, LookupError, ValueError):
        yield DoctorFinding("memory", "unknown on this system")


def _energy() -> Iterator[DoctorFinding]:
    from ingle.energy.meter import open_meter, sources

    meter = open_meter()
    for source, known, cure in sources(meter):
        locked = source == "rapl" and meter.rapl.state == "locked"
        yield DoctorFinding(f"energy: {source}", known, "missing" if locked else "ok", cure)


def _home(home: Home) -> Iterator[DoctorFinding]:
    if not home.root.exists():
        yield DoctorFinding("home", f"{home.root} (not made yet)", "missing", "`ingle pull smollm2` makes it.")
        return
    home.create()  # says what is wrong if it can't be written
    used = sum(path.stat().st_size for path in home.root.rglob("*") if path.is_file())
    yield DoctorFinding("home", f"{home.root}: {used / 1e6:.0f} MB, {shutil.disk_usage(home.root).free / 1e9:.1f} GB free on its disk")
    yield from _settings(home)


def _settings(home: Home) -> Iterator[DoctorFinding]:
    from ingle.app.settings import read_settings

    read_settings(home)
    if home.config.exists():
        yield DoctorFinding("settings", str(home.config))


def _kernels(home: Home, all_of_them: bool) -> Iterator[DoctorFinding]:
    from ingle.cli.progress import watching
    from ingle.cli.selftest import FASTEST, check_linears, read_gb_per_s
    from ingle.core.process import usable_cores
    from ingle.kernels.jit import ENTRIES, build, cache_folder, stored

    there = {name for name in ENTRIES if stored(name) is not None}
    if all_of_them:
        with watching() as watch:
            built = build(progress=lambda done, total: watch.pieces("compiling kernels", done, total))
        how = f"{len(there)} of {len(ENTRIES)} were there, {built} compiled now"
        there = set(ENTRIES)
    else:
        how = f"{len(there)} of {len(ENTRIES)} compiled; what a model needs is compiled when it is pulled"
    yield DoctorFinding("kernel cache", f"{cache_folder()}: {how}")
    checked = check_linears(there)
    if not checked:
        yield DoctorFinding(
            "self-test", "no kernel is compiled yet", "missing", "`ingle home doctor --kernels` compiles and tests them all."
        )
        return
    wrong = [result.name for result in checked if not result.sound]
    worst = max(result.error for result in checked)
    if wrong:
        cure = f"Delete {home.jit} and run this again; if it stays wrong, please report it."
        yield DoctorFinding("self-test", f"{', '.join(wrong)} differ from their naive references (by {worst:.1e})", "broken", cure)
    else:
        yield DoctorFinding(
            "self-test", f"{', '.join(result.name for result in checked)} agree with their naive references (to {worst:.0e})"
        )
    if FASTEST not in there:
        return
    threads = usable_cores()
    speed = read_gb_per_s(threads)
    slow = speed < _SLOW_GB_PER_S
    cure = "Is something else busy here? The memory of a small virtual machine can be this slow." if slow else ""
    yield DoctorFinding("weights read", f"{speed:.1f} GB/s by {threads} threads", "slow" if slow else "ok", cure)


def _models(home: Home) -> Iterator[DoctorFinding]:
    from ingle.home.base import is_whole, read_base
    from ingle.home.kept import list_kept

    kept = list_kept(home)
    if not kept:
        yield DoctorFinding("models", "none is kept", "missing", "ingle pull smollm2")
    for one in kept:
        base = read_base(home, one.base)
        whole = is_whole(home, base)
        cure = "" if whole else f"Files are missing or cut off: ingle rm {one.name}, then pull it again."
        yield DoctorFinding(f"model {one.name}", f"{base.nbytes / 1e6:.0f} MB from {base.source}", "ok" if whole else "broken", cure)


def _ledger(home: Home) -> Iterator[DoctorFinding]:
    from ingle.app.house import open_ledger

    if not home.other_database and not home.database_file.exists():
        yield DoctorFinding("ledger", "empty")
        return
    with open_ledger(home) as ledger:
        result = ledger.verify()
    if result.problem:
        yield DoctorFinding("ledger", result.problem.what, "broken", "ingle verify says more.")
    else:
        yield DoctorFinding("ledger", f"whole, {counted(result.count, 'fact')}")


def _extras() -> Iterator[DoctorFinding]:
    """Yield the optional extras, read from the package itself, so that a new extra needs no line here."""
    for extra, packages in requirements().items():
        if extra in _NOT_FOR_USERS:
            continue
        lacking = [name for name in packages if not installed(name)]
        if lacking:
            value = f"without {', '.join(lacking)}{_WITHOUT.get(extra, '')}"
            yield DoctorFinding(f"extra {extra}", value, "missing", how_to_install(extra))
        else:
            yield DoctorFinding(f"extra {extra}", ", ".join(f"{name} {installed(name)}" for name in packages))
    if importlib.util.find_spec("readline") is None:
        yield DoctorFinding("line editing", "this Python has no readline", "missing", "Chat works; lines can't be edited or recalled.")


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Model")))
    return next(names, "") or platform.processor() or "unknown CPU"
