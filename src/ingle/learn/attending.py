"""Attention of a row's documents by our kernels (kernels/packed.py), forward and back, in float32 NumPy. It is train/kernel_attention.py
without PyTorch: one thread, so that the same row gives the same bits.

Shapes: N queries, T tokens, G groups, R query heads a group, D head_dim, a multiple of 32.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from ingle.kernels import packed as at
from ingle.kernels.attention_plan import AttentionPlan
from ingle.kernels.jit import kernel

Array = npt.NDArray[np.float32]
Back = Callable[[Array], tuple[Array, Array, Array]]


def attend(q: Array, k: Array, v: Array, plan: AttentionPlan) -> tuple[Array, Back]:
    """Attend: turned q [N, G, R, D], turned k and v [T, G, D] → [N, G, R, D], and what gives q's, k's and v's gradients for its own."""
    dim = q.shape[-1]
    wide_q, wide_k, wide_v = (np.ascontiguousarray(x.swapaxes(0, 1)) for x in (q, k * np.float32(dim**-0.5), v))
    inputs = {"Q": wide_q, "K": wide_k, "V": wide_v, "K_TRANSPOSED": _transposed(wide_k), "V_TRANSPOSED": _transposed(wide_v)}
    out, sums = np.empty_like(wide_q), np.empty((*wide_q.shape[:3], 2), np.float32)
    _run("packed_forward", plan, inputs | {"OUT": out, "SUMS": sums}, [])

    def back(g: Array) -> tuple[Array, Array, Array]:
        to_out = np.ascontiguousarray(g.swapaxes(0, 1))
        inner = (to_out * out).sum(-1)
        to_q, to_k, to_v = np.empty_like(wide_q), np.zeros_like(wide_k), np.zeros_like(wide_v)
        _run("packed_backward", plan, inputs | {"SUMS": sums, "INNER": inner, "TO_OUT": to_out, "TO_Q": to_q}, [to_k, to_v])
        return to_q.swapaxes(0, 1), to_k.swapaxes(0, 1) * np.float32(dim**-0.5), to_v.swapaxes(0, 1)

    return out.swapaxes(0, 1), back


def _run(name: str, plan: AttentionPlan, arrays: dict[str, Array], slopes: list[Array]) -> None:
    blocks, runs = plan.records()
    groups, queries, repeats, width = arrays["Q"].shape
    record = np.zeros(len(at.FIELDS), np.int64)
    record[[at.WIDTH, at.REPEATS, at.QUERIES, at.TOKENS]] = width, repeats, queries, arrays["K"].shape[1]
    record[[at.TRANSPOSED_LINE, at.BLOCKS, at.RUNS]] = arrays["K_TRANSPOSED"].shape[-1], blocks.ctypes.data, runs.ctypes.data
    for field, array in arrays.items():
        assert array.flags.c_contiguous and array.dtype == np.float32, field
        record[at.FIELDS.index(field)] = array.ctypes.data
    [tasks] = plan.tasks(groups, 1)
    room = np.empty(at.scratch_floats(plan.most_queries * repeats), np.float32)
    kernel(name)(record.ctypes.data, tasks.ctypes.data, len(tasks), room.ctypes.data, *(slope.ctypes.data for slope in slopes))


def _transposed(x: Array) -> Array:
    """[G, T, D] → [G, D, T and padding that a kernel may read]; lines are no power of two long."""
    groups, tokens, dim = x.shape
    line = (tokens + 31) // 16 * 16
    out = np.zeros((groups, dim, line + 16 if line % 256 == 0 else line), np.float32)
    out[..., :tokens] = x.swapaxes(1, 2)
    return out
