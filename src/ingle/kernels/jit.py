"""Load compiled kernels without Numba, and compile those that the cache lacks.

Importing Numba costs 0.3 s and 150 MB, and its own cache is made of pickles. So `build.py`, in another process, turns Numba's code into
object files, which are kept here with their digest and loaded by llvmlite alone. A kernel takes int64 arguments (addresses and sizes),
returns nothing, raises nothing and allocates nothing, so it needs no Python run time.
"""

import ctypes
import hashlib
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cache, wraps
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar, TypeVarTuple

from llvmlite import binding as llvm

from ingle.core.errors import KernelError
from ingle.core.files import write_atomic
from ingle.core.progress import Counted, silent
from ingle.core.state import BLOCK_TOKENS, PAGE_TOKENS
from ingle.kernels.cpu import dot_instruction, features, has_bf16_tiles
from ingle.kernels.cpu import name as cpu_name
from ingle.kernels.layout import LINEARS

_MAGIC = b"ingle-kernel-1\n"
_Arguments = TypeVarTuple("_Arguments")
_Result = TypeVar("_Result")
# A mapped file that can't be written to, in `/proc/self/smaps`, and how much of it is not the file's.
_ENTRY = re.compile(r"^(?P<place>[0-9a-f]+-[0-9a-f]+) r-\S+ \S+ \S+ \S+ +(?P<file>/.*)$(?:\n[A-Z].*)*?\nAnonymous: +(?P<own>\d+) kB", re.M)
_LLVM = Lock()  # LLVM has one context for all threads


@dataclass(frozen=True)
class KernelEntry:
    """A callable kernel: its module, its number of int64 arguments, and the entries that it calls."""

    module: str
    arguments: int
    calls: tuple[str, ...] = ()


_ATTENTIONS = ("attention_f16", "attention_f32", "attention_int8")
ADAPTER_KERNELS = frozenset({"adapter_in", "adapter_out"})  # reached only in steps with an adapter
MEMORY_KERNELS = frozenset({"memory_features", "memory_walk", "memory_blend"})  # reached only in layers with recurrent memories
# Reached only in layers with another mixer than attention, or with experts.
SUBLAYER_KERNELS = frozenset({"short_convolution", "gated_delta", "mixture"})
ENTRIES = {
    **{name: KernelEntry("ingle.kernels.linear", 7) for name in LINEARS},
    **{name: KernelEntry("ingle.kernels.attention", 5) for name in _ATTENTIONS},
    "adapter_in": KernelEntry("ingle.kernels.step_parts", 4),
    "adapter_out": KernelEntry("ingle.kernels.step_parts", 3),
    "memory_features": KernelEntry("ingle.kernels.mixers", 4),
    "memory_walk": KernelEntry("ingle.kernels.mixers", 4),
    "memory_blend": KernelEntry("ingle.kernels.mixers", 7),
    "short_convolution": KernelEntry("ingle.kernels.mixers", 5, tuple(LINEARS)),
    "gated_delta": KernelEntry("ingle.kernels.mixers", 5, tuple(LINEARS)),
    "mixture": KernelEntry("ingle.kernels.mixture", 5, tuple(LINEARS)),
    "packed_forward": KernelEntry("ingle.kernels.packed_attention", 4),
    "packed_backward": KernelEntry("ingle.kernels.packed_attention", 6),
    "memory_forward": KernelEntry("ingle.kernels.packed_memory", 4),
    "memory_backward": KernelEntry("ingle.kernels.packed_memory", 4),
    "convolve": KernelEntry("ingle.kernels.conv", 4),
    "bf16_times": KernelEntry("ingle.kernels.bf16", 1),
    "bf16_back": KernelEntry("ingle.kernels.bf16", 1),
    "turn_in": KernelEntry("ingle.kernels.turning", 3),
    "turn_out": KernelEntry("ingle.kernels.turning", 3),
    "softmax_pick": KernelEntry("ingle.kernels.rows", 4),
    "encoder_pass": KernelEntry("ingle.kernels.encoder", 3, ("linear_int8", "linear_fp32", "linear_bf16", "packed_forward")),
    "encoder_project": KernelEntry("ingle.kernels.encoder", 3, ("linear_int8", "linear_fp32", "linear_bf16")),
    "decoder_step": KernelEntry(
        "ingle.kernels.step", 3, (*LINEARS, *_ATTENTIONS, *sorted(ADAPTER_KERNELS | MEMORY_KERNELS | SUBLAYER_KERNELS))
    ),
}


def needed(name: str, without: frozenset[str] = frozenset()) -> list[str]:
    """Return an entry and all that it calls, except those that the caller knows it will not reach."""
    return [callee for callee in ENTRIES[name].calls if callee not in without] + [name]


def machine() -> llvm.TargetMachine:
    """Return LLVM's description of this CPU. It is new each time, because an engine destroys its own."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    target = llvm.Target.from_default_triple()
    flags = ",".join(f"+{name}" for name in sorted(features()))
    # As Numba does: static code on x86, where the loader can't place jump tables of position-independent code.
    reloc = "static" if platform.machine().lower() in ("x86_64", "amd64", "i386", "i686") else "default"
    return target.create_target_machine(cpu=cpu_name(), features=flags, opt=3, reloc=reloc, codemodel="jitdefault")


@cache
def cache_key() -> str:
    """Digest that tells apart machine code by sources, versions and CPU."""
    others = ("naive", "panels", "tower")
    sources = sorted(file for file in Path(__file__).parent.glob("*.py") if not file.name.startswith(others))
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in sources))
    constants = (BLOCK_TOKENS, PAGE_TOKENS)  # compiled into them from elsewhere
    parts = (
        constants,
        sys.version,
        llvm.llvm_version_info,
        platform.machine(),
        cpu_name(),
        sorted(features()),
        dot_instruction(),
        has_bf16_tiles(),
    )
    digest.update(repr(parts).encode())
    return digest.hexdigest()[:16]


@cache
def cache_folder() -> Path:
    """Return the folder of compiled kernels: below `INGLE_KERNEL_CACHE`, which callers that know the home set, else a private temporary
    folder."""
    me = os.getuid() if hasattr(os, "getuid") else 0
    root = os.environ.get("INGLE_KERNEL_CACHE") or str(Path(tempfile.gettempdir()) / f"ingle-kernels-{me}")
    folder = Path(root) / cache_key()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    owner = folder.parent.stat().st_uid
    if owner not in (me, 0):
        raise KernelError(str(folder), "must belong to you, since what lies there is run", f"owner {owner}", "Set INGLE_KERNEL_CACHE.")
    return folder


def store(name: str, code: bytes) -> None:
    """Store the object code of an entry, with its digest."""
    write_atomic(cache_folder() / f"{name}.o", _MAGIC + hashlib.sha256(code).digest() + code)


def stored(name: str) -> bytes | None:
    """Return the object code of an entry, or None if the cache has no intact one."""
    try:
        data = (cache_folder() / f"{name}.o").read_bytes()
    except FileNotFoundError:
        return None
    head = len(_MAGIC) + 32
    if not data.startswith(_MAGIC) or hashlib.sha256(data[head:]).digest() != data[len(_MAGIC) : head]:
        return None
    return data[head:]


def build(names: Iterable[str] = tuple(ENTRIES), progress: Counted = silent) -> int:
    """Compile the entries that the cache lacks, each in its own process, one per core at a time; return how many.

    `progress` gets how many are done, of how many. Raises KernelError with the compiler's last words.
    """
    missing = [name for name in names if stored(name) is None]
    missing.sort(key=lambda name: name not in ("decoder_step", *_ATTENTIONS))  # the longest first
    progress(0, len(missing))
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        try:
            for done, finished in enumerate(as_completed([pool.submit(_build_one, name) for name in missing]), 1):
                finished.result()
                progress(done, len(missing))
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return len(missing)


def _build_one(name: str) -> None:
    command = [sys.executable, "-P", "-m", "ingle.kernels.build", name]
    result = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    if result.returncode:
        got = result.stderr.strip().splitlines()[-1:] or [f"exit code {result.returncode}"]
        raise KernelError(f"kernel {name}", "must compile on this machine", got[0][:500], "Please report it with `ingle home doctor`.")


@cache
def _give_symbols() -> None:
    """Define `ingle_yield` for compiled code, which lets another thread run (see step_parts.py)."""
    system = ctypes.windll.kernel32 if os.name == "nt" else ctypes.CDLL(None)  # type: ignore[attr-defined, unused-ignore]
    let_others_run = system.SwitchToThread if os.name == "nt" else system.sched_yield
    llvm.add_symbol("ingle_yield", ctypes.cast(let_others_run, ctypes.c_void_p).value)


def _forget_compiler(maps: Path = Path("/proc/self/smaps")) -> None:
    """Release the memory of LLVM's own code and constants once kernels are loaded: some 65 MB, read again from its file if ever needed.

    maps: where the system tells what it holds.
    """
    if not maps.exists():
        return
    madvise, dont_need = ctypes.CDLL(None).madvise, 4
    entries = [entry for entry in _ENTRY.finditer(maps.read_text()) if "llvmlite" in entry["file"]]
    written = [entry for entry in entries if entry["own"] != "0"]
    # What nobody has written to, not even the loader, loses nothing. An emulator (QEMU) says that of all: there, all stays.
    for entry in entries if written else ():
        if entry not in written:
            start, end = (int(part, 16) for part in entry["place"].split("-"))
            madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), dont_need)


def _code(name: str) -> bytes:
    code = stored(name)
    if code is None:
        changed = cache_key.__wrapped__() != cache_key()  # what compiled it has read other sources than this process
        cure = "Ingle was changed while this ran: run the same command again." if changed else "Is that folder writable?"
        raise KernelError(f"kernel {name}", "must be readable after it was compiled", cache_folder(), cure)
    return code


def _load(name: str, without: frozenset[str], assembly: str, function: str) -> tuple[llvm.ExecutionEngine, int]:
    """Load an entry and all that it calls, beside some assembly; return the address of a function of either."""
    parts = needed(name, without)
    build(parts)
    with _LLVM:
        _give_symbols()
        engine = llvm.create_mcjit_compiler(llvm.parse_assembly(assembly), machine())
        for part in parts:
            engine.add_object_file(llvm.ObjectFileRef.from_data(_code(part)))
        engine.finalize_object()
        address = engine.get_function_address(function)
        _forget_compiler()
    if not address:
        raise KernelError(f"kernel {name}", "must be in its object file", "nothing", "Delete the kernel cache; it will be compiled again.")
    return engine, address


def _once(make: Callable[[*_Arguments], _Result]) -> Callable[[*_Arguments], _Result]:
    """`functools.cache` for threads: callers wait while another makes the same value, so that it is made once."""
    results, locks = dict[Any, _Result](), dict[Any, Lock]()

    @wraps(make)
    def get(*arguments: *_Arguments) -> _Result:
        if arguments not in results:
            with locks.setdefault(arguments, Lock()):
                if arguments not in results:
                    results[arguments] = make(*arguments)
        return results[arguments]

    return get


def kernel(name: str, without: frozenset[str] = frozenset()) -> Callable[..., None]:
    """Return the machine code of an entry, as a callable of int64 arguments that releases the GIL while it runs.

    `without`: entries that it will not reach; they are neither compiled nor loaded, and calling them ends the process. Raises KernelError
    if it can't be compiled or loaded here.
    """
    return _kernel(name, without)


@_once
def _kernel(name: str, without: frozenset[str]) -> Callable[..., None]:
    stubs = "".join(
        f"define i32 @{callee}(ptr, ptr{', i64' * ENTRIES[callee].arguments}) {{ call void @llvm.trap() unreachable }}\n"
        for callee in ENTRIES[name].calls
        if callee in without
    )
    engine, address = _load(name, without, f"declare void @llvm.trap()\n{stubs}", name)
    # Numba's calling convention: a place for the result, one for an exception, then the arguments; the status is always 0 here.
    native = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, *(ctypes.c_int64,) * ENTRIES[name].arguments)(address)
    places = (ctypes.c_void_p * 2)()
    result, exception = ctypes.addressof(places), ctypes.addressof(places) + ctypes.sizeof(ctypes.c_void_p)

    def call(*values: int, _alive: Any = (engine, places)) -> None:
        native(result, exception, *values)

    return call


@_once
def team_kernel(name: str) -> tuple[int, Any]:
    """Return the address of a C function `void (void *data)` with which the threads of a team (OpenMP's) share calls of an entry, and an
    object that must stay alive as long as it may be called.

    data, int64: the addresses of C functions `int ()` for a thread's number and its team's size, the number of calls, and all their
    arguments. Raises KernelError as `kernel` does.
    """
    count = ENTRIES[name].arguments
    loads = "".join(
        f"%p{i} = getelementptr i64, ptr %data, i64 %i{i}\n%a{i} = load i64, ptr %p{i}\n%i{i + 1} = add i64 %i{i}, 1\n"
        for i in range(count)
    )
    argument_list = "".join(f", i64 %a{i}" for i in range(count))
    assembly = f"""declare i32 @{name}(ptr, ptr{", i64" * count})
define void @team(ptr %data) {{
entry:
  %places = alloca [2 x i64]
  %exception = getelementptr i64, ptr %places, i64 1
  %number = load ptr, ptr %data
  %at1 = getelementptr i64, ptr %data, i64 1
  %size = load ptr, ptr %at1
  %at2 = getelementptr i64, ptr %data, i64 2
  %calls = load i64, ptr %at2
  %me32 = call i32 %number()
  %all32 = call i32 %size()
  %me = sext i32 %me32 to i64
  %all = sext i32 %all32 to i64
  br label %test
test:
  %row = phi i64 [ %me, %entry ], [ %next, %body ]
  %more = icmp slt i64 %row, %calls
  br i1 %more, label %body, label %end
body:
  %past = mul i64 %row, {count}
  %i0 = add i64 %past, 3
  {loads}
  %status = call i32 @{name}(ptr %places, ptr %exception{argument_list})
  %next = add i64 %row, %all
  br label %test
end:
  ret void
}}
"""
    engine, address = _load(name, frozenset(), assembly, "team")
    return address, engine
