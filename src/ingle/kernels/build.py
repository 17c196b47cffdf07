"""Compile one kernel to an object file: `python -m ingle.kernels.build NAME`. The only module that imports Numba to run it."""

import importlib
import os
import sys
from typing import Any

from llvmlite import binding as llvm

from ingle.kernels.cpu import features
from ingle.kernels.cpu import name as name_of_cpu
from ingle.kernels.jit import ENTRIES, machine, store


def compile_entry(name: str) -> bytes:
    """Return the object code of an entry, under the entry's name, with everything inside that it calls in Python code."""
    os.environ["NUMBA_OPT"] = "0"  # each piece would be optimised again with its caller; once, here, is enough
    os.environ["NUMBA_CPU_NAME"], os.environ["NUMBA_CPU_FEATURES"] = (
        name_of_cpu(),
        ",".join(f"+{feature}" for feature in sorted(features())),
    )
    import numba

    entry = ENTRIES[name]
    for outside in ("ingle_yield", *entry.calls):
        llvm.add_symbol(outside, 1)  # Numba wants an address for each; nothing is run here, and jit.py links the real ones
    function = getattr(importlib.import_module(entry.module), name)
    function = getattr(function, "py_func", function)  # a linear was made by a function that makes many
    signature = numba.types.void(*(numba.types.int64,) * entry.arguments)
    compiled: Any = numba.njit(signature, error_model="numpy", boundscheck=False)(function)
    symbol_name = compiled.overloads[compiled.signatures[0]].fndesc.llvm_func_name
    module = llvm.parse_assembly(compiled.inspect_llvm(compiled.signatures[0]))
    for symbol in module.functions:
        if symbol.is_declaration:
            continue
        if symbol.name == symbol_name:
            symbol.name = name
            symbol.linkage = llvm.Linkage.external
        else:  # Numba's wrapper for Python is dropped with whatever else the kernel doesn't reach
            symbol.linkage = llvm.Linkage.internal
    for variable in module.global_variables:
        if not variable.is_declaration:
            variable.linkage = llvm.Linkage.internal
    target = machine()
    builder = llvm.create_pass_builder(target, llvm.create_pipeline_tuning_options(speed_level=3))
    builder.getModulePassManager().run(module, builder)
    return bytes(target.emit_object(module))


if __name__ == "__main__":
    store(sys.argv[1], compile_entry(sys.argv[1]))
