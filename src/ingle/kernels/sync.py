"""Synchronisation of a step's threads in compiled code: a counter, a barrier, and shared work.

A step of a small model has some two hundred phases of tens of microseconds, so threads spin; after a while they let others run,
so that a busy machine slows Ingle down and does not stop it.
"""

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from ingle.kernels.simd import I64

_PATIENCE = 2000  # turns of the waiting loop (some 20 µs) before the thread yields


@intrinsic
def fetch_add(_typing, address, amount):
    """Add to an int64 that threads share, and return its value before."""

    def emit(_context, b, _sig, args):
        return b.atomic_rmw("add", b.inttoptr(args[0], ir.PointerType(I64)), args[1], "acq_rel")

    return types.int64(types.int64, types.int64), emit


@intrinsic
def load_acquire(_typing, address):
    """Read an int64 that threads share; earlier writes of the thread that set it are then visible."""

    def emit(_context, b, _sig, args):
        return b.load_atomic(b.inttoptr(args[0], ir.PointerType(I64)), "acquire", 8)

    return types.int64(types.int64), emit


@intrinsic
def yield_thread(_typing):
    """Let another thread run on this core."""

    def emit(context, b, _sig, _args):
        b.call(cgutils.get_or_insert_function(b.module, ir.FunctionType(ir.IntType(32), []), "ingle_yield"), [])
        return context.get_dummy_value()

    return types.void(), emit


def external(name, arguments):
    """Return a call of another entry of `jit.ENTRIES`, linked by name when both are loaded; all arguments are int64."""
    word = ir.IntType(8).as_pointer()
    prototype = ir.FunctionType(ir.IntType(32), [word.as_pointer(), word.as_pointer(), *[I64] * arguments])

    @intrinsic
    def call(_typing, values):
        def emit(context, b, _sig, args):
            places = [cgutils.alloca_once(b, word), cgutils.alloca_once(b, word)]  # Numba's: the result and an exception, neither used
            function = cgutils.get_or_insert_function(b.module, prototype, name)
            b.call(function, [*places, *cgutils.unpack_tuple(b, args[0], arguments)])
            return context.get_dummy_value()

        return types.void(types.UniTuple(types.int64, arguments)), emit

    return call


@njit
def barrier(counter, threads):
    """Wait until all `threads` have called this as often as this one; `counter` starts at 0 and has no other use."""
    if threads > 1:
        target = (fetch_add(counter, 1) // threads + 1) * threads
        turns = 0
        while load_acquire(counter) < target:
            turns += 1
            if turns > _PATIENCE:
                yield_thread()


@njit
def take(counters, phase, amount):
    """Take the next `amount` tasks of a phase and return the first; `counters` has one int64 a phase, all starting at 0."""
    return fetch_add(counters + 8 * phase, amount)
