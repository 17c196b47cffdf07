"""The memory's chunked form, forward and back, against Hugging Face's in PyTorch (`torch_chunk_gated_delta_rule`), on the same numbers;
and a whole memory as training computes it on a CPU, by our own kernels, against the same by PyTorch.

    python bench/hybrid_chunks.py

Shapes as in one layer of SmolLM2: three groups of one memory each, three query heads a group, heads of 64. Hugging Face's form reads a
state by one query; for three it gets keys, values and gates three times, as its own models with grouped heads do it. A whole memory also
maps queries and keys, finds what is kept and written, and blends what it gives with what a window saw: more than the rule alone, which it
is held against all the same. Outputs and gradients must agree before a ratio is shown. tokens/s: of one layer, forward and back.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from harness import Figure, alternate, finish, ratios, show
from ingle.core.spec import LayerSpec, ModelConfig, Rope
from ingle.model.module_parts import Features, RecurrentMemory, chunked, unit
from ingle.train.forward import read_packed

GROUPS, HEADS, WIDTH = 3, 3, 64
SPEC = LayerSpec((), window=1, memory="gated_delta")
BAR = 2.0
NAMES = {
    "chunked": "chunks", "theirs": "Hugging Face's", "kernels": "a whole memory by kernels", "packed": "by PyTorch",
}  # fmt: skip


def inputs(sequences: int, tokens: int) -> tuple[Tensor, ...]:
    """Queries, keys, values, log α and β, all leaves."""
    draw = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draw)

    queries, keys = unit(normal(sequences, tokens, GROUPS, HEADS, WIDTH)), unit(normal(sequences, tokens, GROUPS, WIDTH))
    gates = torch.nn.functional.logsigmoid(normal(sequences, tokens, GROUPS) + 5), torch.sigmoid(normal(sequences, tokens, GROUPS))
    return tuple(t.requires_grad_() for t in (queries, keys, normal(sequences, tokens, GROUPS, WIDTH), *gates))


def ours(leaves: tuple[Tensor, ...]) -> Tensor:
    """[n, L, G, R, D]."""
    return chunked(Features(*leaves))


def theirs(leaves: tuple[Tensor, ...]) -> Tensor:
    """The same by Hugging Face."""
    from transformers.models.qwen3_next.modeling_qwen3_next import torch_chunk_gated_delta_rule as rule

    queries, keys, values, decay, write = leaves
    key, value, g, beta = (t.repeat_interleave(HEADS, 2) for t in (keys, values, decay, write))
    y, _ = rule(queries.flatten(2, 3) * WIDTH**0.5, key, value, g, beta)  # it divides by the root itself
    return y.view(queries.shape)


def run(form: Callable[[tuple[Tensor, ...]], Tensor], leaves: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Output and gradients."""
    y = form(leaves)
    return (y.detach(), *torch.autograd.grad((y * torch.linspace(-1, 1, WIDTH)).sum(), leaves))


def whole(sequences: int, tokens: int) -> tuple[RecurrentMemory, tuple[Tensor, ...]]:
    """A memory that has learnt something, and what a layer gives it: what windows saw, queries, keys and values of packed documents."""
    draw = torch.Generator().manual_seed(1)
    config = ModelConfig("llama", 64, 64, 64, GROUPS * HEADS, GROUPS, WIDTH, (SPEC,), 4096, Rope())
    memory = RecurrentMemory(config, GROUPS)
    memory.begin()
    with torch.no_grad():
        for parameter in memory.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=draw)
    shapes = [(sequences * tokens, GROUPS, HEADS, WIDTH)] * 2 + [(sequences * tokens, GROUPS, WIDTH)] * 2
    return memory, tuple(torch.randn(shape, generator=draw).requires_grad_() for shape in shapes)


def read(form: Callable[..., Tensor], memory: RecurrentMemory, leaves: tuple[Tensor, ...], sequences: int) -> tuple[Tensor, ...]:
    """Output and gradients of a whole memory, its parameters' among them."""
    bounds = [len(leaves[0]) // sequences * i for i in range(sequences + 1)]
    y = form(memory, *leaves, SPEC, bounds)
    return (y.detach(), *torch.autograd.grad((y * torch.linspace(-1, 1, WIDTH)).sum(), [*leaves, *memory.parameters()]))


def agree(found: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> None:
    """Raises AssertionError if they don't."""
    for mine, other in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-4 * float(other.abs().max()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    rows: list[list[object]] = [
        ["sequences × tokens", *(f"{name}, tokens/s" for name in NAMES.values()), "chunks / Hugging Face's", "kernels / Hugging Face's"]
    ]
    result = {}
    for sequences, tokens in ((2, 1024), (1, 2048), (8, 256), (1, 300)):
        leaves, (memory, given) = inputs(sequences, tokens), whole(sequences, tokens)
        forms: dict[str, Callable[[], tuple[Tensor, ...]]] = {
            "chunked": partial(run, ours, leaves), "theirs": partial(run, theirs, leaves),
            "kernels": partial(read, read_packed, memory, given, sequences),
            "packed": partial(read, RecurrentMemory.packed, memory, given, sequences),
        }  # fmt: skip
        agree(forms["chunked"](), forms["theirs"]())
        agree(forms["kernels"](), forms["packed"]())

        def speed(name: str, count: int = sequences * tokens, forms: dict[str, Callable[[], tuple[Tensor, ...]]] = forms) -> float:
            start = time.perf_counter()
            forms[name]()
            return count / (time.perf_counter() - start)

        figures: dict[str, Figure] = alternate(options.rounds, {name: partial(speed, name) for name in NAMES})
        against = {"chunks": ratios(figures["chunked"], figures["theirs"]), "kernels": ratios(figures["kernels"], figures["theirs"])}
        rows.append([f"{sequences} × {tokens}", *figures.values(), *against.values()])
        result[f"{sequences}x{tokens}"] = {
            name: one.table() for name, one in (figures | {f"{name}_ratio": ratio for name, ratio in against.items()}).items()
        }
    show("gated delta rule, forward and back, median (range); outputs and gradients agree", rows)
    held = all(one["kernels_ratio"]["median"] >= BAR for one in result.values())
    print(f"a whole memory by kernels against Hugging Face's rule alone, bar ≥ {BAR}: {'held' if held else 'MISSED'}")
    finish("hybrid_chunks", {"sizes": result, "held": held})


if __name__ == "__main__":
    main()
