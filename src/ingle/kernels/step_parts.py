"""Parts that the sublayers of a step share: its meeting points, its adapters, a model's factors."""

from numba import njit

from ingle.kernels import layout as at
from ingle.kernels.simd import f32_at, get
from ingle.kernels.sync import barrier, external

_adapter_in, _adapter_out = external("adapter_in", 4), external("adapter_out", 3)


@njit
def adapter_of(step, row, index):
    """Return the row's adapter in layer number `index`: address of its seven records; 0 = none."""
    adapted = get(get(step, at.SEGMENTS) + 8 * at.SEGMENT * get(get(step, at.SEGMENT_OF), row), at.ADAPTED)
    return adapted if adapted == 0 else adapted + 8 * 7 * at.ADAPTER * index


@njit
def look(step, adapted, linear, x, row, slot):
    """Compute A x of one linear of a row's adapter. `linear`: its number in the layer; x: activations, rounded; `slot`: which of the row's
    three places gets the result."""
    place = adapted + 8 * at.ADAPTER * linear
    if adapted != 0 and get(place, at.ADAPTER_RANK) != 0:
        inner = get(step, at.INNER) + 4 * get(step, at.INNER_WIDTH) * (3 * row + slot)
        _adapter_in((place, x, row, inner))


@njit
def add_adapter(step, adapted, linear, y, row, slot):
    """Add B (A x) to y, after the linear itself."""
    place = adapted + 8 * at.ADAPTER * linear
    if adapted != 0 and get(place, at.ADAPTER_RANK) != 0:
        inner = get(step, at.INNER) + 4 * get(step, at.INNER_WIDTH) * (3 * row + slot)
        _adapter_out((place, inner, y))


@njit
def meet(step):
    barrier(get(step, at.BARRIER), get(step, at.THREADS))


@njit
def factor_of(model, number):
    return f32_at(get(model, at.FACTORS) + 4 * number)
