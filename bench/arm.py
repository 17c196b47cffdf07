"""Ingle on an Arm processor, by emulation: greedy answers have the tokens that they have here.

It needs Debian (apt, dpkg) and fetches, into one folder: QEMU's user emulation, an Arm Python, and the libraries' own Arm wheels. What
runs there is this clone. Numba takes minutes for a kernel under emulation, so kernels are compiled here, for Arm, by the same code, all
but those named by `--there`. Emulation says nothing of speed, and nothing of another processor than the one named: `cortex-a72` has no
byte products with mixed signs, so the portable ones are tried.
"""

import json
import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

from harness import ROOT, finish, show
from servers import say, scratch_home, start_bench

EXAMPLES = """  python bench/arm.py --folder arm
  python bench/arm.py --folder arm --there softmax_pick adapter_in adapter_out
"""
CPU = "cortex-a72"
PARTS = (
    "python3.13-minimal libpython3.13-minimal libpython3.13-stdlib libc6 libgcc-s1 libstdc++6 zlib1g libexpat1 libffi8 libssl3t64 "
    "libsqlite3-0 liblzma5 libbz2-1.0 libuuid1 libncursesw6 libtinfo6 libreadline8t64 libzstd1"
)
"""Of Debian 13, for arm64."""
KERNELS = ("decoder_step", "attention_f16", "attention_int8", "linear_int4", "linear_int8", "linear_fp32", "softmax_pick", "adapter_in",
           "adapter_out")  # fmt: skip
PROMPTS = ("Once upon a time", "The capital of France is", "def add(a, b):")
ANSWER = """
import json, sys
from ingle.core.message import Request, Sampling
from ingle.engine.answer import answer
from ingle.engine.loading import open_model
from ingle.engine.packs import kept_source
from ingle.home.kept import get_kept
from ingle.home.place import find_home
home, count = find_home(), int(sys.argv[1])
model = open_model(kept_source(home, get_kept(home, "smollm2")), threads=1, cache=sys.argv[2])
for prompt in sys.argv[3:]:
    request = Request(prompt=prompt, max_tokens=count, sampling=Sampling(temperature=0.0, repetition_penalty=1.0))
    print(json.dumps([id_ for chunk in answer(model, request) for id_ in chunk.tokens]), flush=True)
"""
ABOUT = "from ingle.kernels import cpu, jit; print(cpu.name(), ','.join(sorted(cpu.features())), jit.cache_key())"
CROSS = """
import hashlib, re, sys
import numba  # before the machine seems to be another
from llvmlite import binding as llvm
from ingle.kernels import cpu
name, features, out, *kernels = sys.argv[1:]
has = frozenset(features.split(","))
cpu.features, cpu.name, cpu._is_arm = lambda: has, lambda: name, lambda: True
from ingle.kernels import jit, build
from pathlib import Path
llvm.initialize_all_targets()
llvm.initialize_all_asmprinters()
triple = "aarch64-unknown-linux-gnu"
def machine():
    flags = ",".join(f"+{one}" for one in sorted(has))
    return llvm.Target.from_triple(triple).create_target_machine(cpu=name, features=flags, opt=3, reloc="default", codemodel="jitdefault")
parse = llvm.parse_assembly
def for_arm(text):
    text = re.sub('target triple = ".*"', f'target triple = "{triple}"', text)
    text = re.sub('target datalayout = ".*"', f'target datalayout = "{machine().target_data}"', text)
    return parse(re.sub('"target-(cpu|features)"="[^"]*"', "", text))
class Binding:
    parse_assembly = staticmethod(for_arm)
    def __getattr__(self, name):
        return getattr(llvm, name)
build.llvm, build.machine = Binding(), machine
build.name_of_cpu, build.features = lambda: "x86-64", frozenset  # what Numba compiles for, and nobody runs
for kernel in kernels:
    code = build.compile_entry(kernel)
    Path(out, f"{kernel}.o").write_bytes(jit._MAGIC + hashlib.sha256(code).digest() + code)
"""


class Arm:
    """A folder with an emulator, an Arm Python and its libraries."""

    def __init__(self, folder: Path) -> None:
        self.root, self.site, self.python = folder / "root", folder / "site", folder / "python"
        self.folder, self.kernels = folder, folder / "kernels"

    def prepare(self) -> None:
        """Fetches and unpacks what is not there yet."""
        if self.python.exists():
            return
        for part in ("apt/lists/partial", "apt/cache/archives/partial", "debs", "here", "wheels", "root", "site", "kernels"):
            (self.folder / part).mkdir(parents=True, exist_ok=True)
        (self.folder / "apt" / "status").touch()
        apt, state = self.folder / "apt", ("Dir::State", "Dir::State::Lists", "Dir::State::status", "Dir::Cache")
        places = zip(state, (apt, apt / "lists", apt / "status", apt / "cache"), strict=True)
        options = ["-oAPT::Architecture=arm64", "-oAPT::Architectures=arm64", *(f"-o{name}={place}" for name, place in places)]
        say("fetching …")
        subprocess.run(["apt-get", "-qq", *options, "update"], check=True, stdout=sys.stderr)
        subprocess.run(["apt-get", "-qq", *options, "download", *PARTS.split()], check=True, cwd=self.folder / "debs", stdout=sys.stderr)
        subprocess.run(["apt-get", "-qq", "download", "qemu-user"], check=True, cwd=self.folder / "here", stdout=sys.stderr)
        for where, into in (("debs", self.root), ("here", self.folder / "here")):
            for file in (self.folder / where).glob("*.deb"):
                subprocess.run(["dpkg", "-x", file, into], check=True)
        (self.root / "lib").symlink_to("usr/lib")
        needed = tomllib.loads((ROOT.parent / "pyproject.toml").read_text())["project"]["dependencies"]
        platforms = [part for minor in range(17, 42) for part in ("--platform", f"manylinux_2_{minor}_aarch64")]
        for_python = ["--python-version", "313", "--implementation", "cp", "--abi", "cp313", "--abi", "abi3", "--abi", "none"]
        fetch = [sys.executable, "-m", "pip", "download", "-q", "--only-binary=:all:", "-d", str(self.folder / "wheels")]
        subprocess.run([*fetch, *platforms, "--platform", "manylinux2014_aarch64", *for_python, *needed], check=True, stdout=sys.stderr)
        for wheel in (self.folder / "wheels").glob("*.whl"):
            zipfile.ZipFile(wheel).extractall(self.site)
        emulator = self.folder / "here" / "usr" / "bin" / "qemu-aarch64"
        there = f"{emulator} -cpu {CPU} -L {self.root} -0 {self.python} {self.root}/usr/bin/python3.13"
        self.python.write_text(f'#!/bin/sh\nexec {there} "$@"\n')
        self.python.chmod(0o755)

    def run(self, *arguments: str) -> str:
        """What Python prints there."""
        paths = {"PYTHONPATH": f"{ROOT.parent / 'src'}:{self.site}", "PYTHONHOME": str(self.root / "usr")}
        apart = {"PYTHONPYCACHEPREFIX": str(self.folder / "pyc"), "INGLE_KERNEL_CACHE": str(self.kernels)}
        command, environment = [str(self.python), *arguments], {**os.environ, **paths, **apart}
        return subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout

    def compile_here(self, there: list[str]) -> list[str]:
        """Compiles its kernels on this machine, all but those named; returns what its processor is and has."""
        about = self.run("-c", ABOUT).split()
        into = self.kernels / about[2]
        into.mkdir(parents=True, exist_ok=True)
        names = [name for name in KERNELS if name not in there and not (into / f"{name}.o").exists()]
        if names:
            say(f"compiling for Arm: {', '.join(names)}")
            subprocess.run([sys.executable, "-c", CROSS, *about[:2], str(into), *names], check=True, stdout=sys.stderr)
        return about


def main() -> None:
    parser = start_bench(__doc__, EXAMPLES)
    parser.add_argument("--folder", type=Path, required=True, help="for what is fetched (1.5 GB), kept for the next time")
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--cache", default="float16", choices=["float16", "int8"])
    parser.add_argument("--there", nargs="*", default=[], choices=KERNELS, help="kernels that are compiled under emulation: minutes each")
    options = parser.parse_args()
    arm = Arm(options.folder.resolve())
    arm.prepare()
    about = arm.compile_here(options.there)
    asked = ("-c", ANSWER, str(options.tokens), options.cache, *PROMPTS)
    with scratch_home() as home:
        os.environ["INGLE_HOME"] = str(home.root)
        here = subprocess.run([sys.executable, *asked], check=True, stdout=subprocess.PIPE, text=True).stdout
        say("answering under emulation …")
        there = arm.run(*asked)
    ours, theirs = ([json.loads(line) for line in text.splitlines()] for text in (here, there))
    same = [sum(a == b for a, b in zip(*pair, strict=True)) for pair in zip(ours, theirs, strict=True)]
    rows = [["prompt", "tokens", "the same there"], *([prompt, len(one), n] for prompt, one, n in zip(PROMPTS, ours, same, strict=True))]
    show(f"{about[0]} ({about[1]}), cache {options.cache}", rows)
    finish("arm", {"cpu": about[0], "features": about[1], "cache": options.cache, "tokens": ours, "there": theirs, "same": sum(same)})


if __name__ == "__main__":
    main()
