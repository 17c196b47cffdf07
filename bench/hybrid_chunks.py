"""The memory's chunked form, forward and back, against Hugging Face's in PyTorch (`torch_chunk_gated_delta_rule`), on the same numbers.

    python bench/hybrid_chunks.py

Shapes as in one layer of SmolLM2: three groups of one memory each, three query heads a group, heads of 64. Hugging Face's form reads a
state by one query; for three it gets keys, values and gates three times, as its own models with grouped heads do it. Outputs and
gradients must agree before a ratio is shown. tokens/s: of one layer, forward and back.
"""

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor

from harness import Figure, alternate, finish, ratios, show
from ingle.model.memory import Features, chunked, unit

GROUPS, HEADS, WIDTH = 3, 3, 64
BAR = 2.0


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
    return chunked(Features(*leaves))[0]


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    rows: list[list[object]] = [["sequences × tokens", "Ingle, tokens/s", "Hugging Face, tokens/s", "ratio"]]
    result = {}
    for sequences, tokens in ((2, 1024), (1, 2048), (8, 256), (1, 300)):
        leaves = inputs(sequences, tokens)
        for mine, other in zip(run(ours, leaves), run(theirs, leaves), strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-4 * float(other.abs().max()))

        def speed(
            form: Callable[[tuple[Tensor, ...]], Tensor], leaves: tuple[Tensor, ...] = leaves, count: int = sequences * tokens
        ) -> float:
            start = time.perf_counter()
            run(form, leaves)
            return count / (time.perf_counter() - start)

        figures: dict[str, Figure] = alternate(options.rounds, {"ours": lambda: speed(ours), "theirs": lambda: speed(theirs)})
        ratio = ratios(figures["ours"], figures["theirs"])
        rows.append([f"{sequences} × {tokens}", figures["ours"], figures["theirs"], ratio])
        result[f"{sequences}x{tokens}"] = {**{name: figure.table() for name, figure in figures.items()}, "ratio": ratio.table()}
    show("gated delta rule in chunks, forward and back, median (range); outputs and gradients agree", rows)
    held = all(one["ratio"]["median"] >= BAR for one in result.values())
    print(f"bar ≥ {BAR}: {'held' if held else 'MISSED'}")
    finish("hybrid_chunks", {"sizes": result, "held": held})


if __name__ == "__main__":
    main()
