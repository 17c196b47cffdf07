"""What a training is said to hold, beside what it really takes, in a process of its own; and models too large to be loaded."""

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from ingle.core.errors import CheckpointError
from ingle.core.headroom import NoRoom
from ingle.core.process import own_bytes
from ingle.core.spec import Experts, ModelConfig, transformer_layers
from ingle.model.checkpoint import open_checkpoint
from ingle.model.module import load_module
from ingle.model.tensor import expected_shapes, size_of
from ingle.train.making import Pass, TrainingPass, computed_bytes, low_rank_parameters

linux = pytest.mark.skipif(sys.platform != "linux", reason="other systems don't tell")
ROOT = Path(__file__).parent.parent.parent
PROGRAM = """
import gc, json, sys, threading
import torch
from ingle.core.process import own_bytes, release_memory
from ingle.core.spec import LayerSpec, ModelConfig, transformer_layers
from ingle.hybridize.hybridizing import loss_of
from ingle.hybridize.hybrid_lessons import Mixers, hybrid_module, memories_of, original_of
from ingle.model.module import CausalLM
from ingle.train.forward import final_states
from ingle.train.objectives import cross_entropy
from ingle.train.objectives import Distillation, Predictions
from ingle.train.optimisers import OptimiserSettings, Trained
from ingle.train.packing import Batch
from ingle.tuning.low_rank_settings import LowRankSettings, attach_low_rank

kind, layers, tokens = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
torch.set_num_threads(1)
config = ModelConfig("llama", 2000, 256, 640, 4, 2, 64, transformer_layers(layers, 2), 8192, tie_embeddings=True)
module = CausalLM(config).to(torch.float32).requires_grad_(False)
ids = torch.randint(0, 2000, (tokens,))
rows = torch.arange(tokens // 2, tokens - 1)
batch = Batch((0,), (0, tokens), ids, torch.arange(tokens).float(), rows, ids[rows + 1], torch.zeros(len(rows), dtype=torch.long), ids[:1])
if kind == "low-rank":
    parameters = attach_low_rank(module, tuple(range(layers)), LowRankSettings(8), 1.0, 0)[0].parameters
    trained = Trained(parameters, OptimiserSettings(), torch.float32)
    loss = lambda: cross_entropy(final_states(module, batch), module.lm_head.weight, batch.targets)
elif kind == "whole":
    trained = Trained(dict(module.named_parameters()), OptimiserSettings(), torch.float32)
    loss = lambda: cross_entropy(final_states(module, batch), module.lm_head.weight, batch.targets)
elif kind == "search":
    shares = torch.full((layers, 2), 0.5, requires_grad=True)
    loss = lambda: loss_of(module, batch, shares, LayerSpec((), 128, 32))
else:
    hybrid = hybrid_module(module, (LayerSpec((), 128, 32, "gated_delta"),) * layers)
    trained, theirs = Trained(memories_of(hybrid), OptimiserSettings(), torch.float32), original_of(hybrid)
    objective = Mixers(theirs) if kind == "mixers" else Distillation(Predictions(theirs), "digest")
    loss = lambda: objective(hybrid, lambda: final_states(hybrid, batch), batch).total
loss().backward()
gc.collect()
release_memory()
before, most, over = own_bytes(), [0], threading.Event()

def look():
    while not over.wait(0.001):
        most[0] = max(most[0], own_bytes() - before)

thread = threading.Thread(target=look)
thread.start()
loss().backward()
over.set()
thread.join()
print(json.dumps(most[0]))
"""


def config_of(layers: int, **changes: int) -> ModelConfig:
    sizes = {"vocab_size": 2000, "hidden_size": 256, "intermediate_size": 640, "num_heads": 4, "num_kv_heads": 2, "head_dim": 64} | changes
    return ModelConfig("llama", **sizes, layers=transformer_layers(layers, sizes["num_kv_heads"]), context_length=8192, tie_embeddings=True)


@linux
@pytest.mark.parametrize("kind", ["low-rank", "whole", "search", "mixers", "follow"])
def test_a_row_takes_what_was_foretold(kind: Pass) -> None:
    layers, tokens = 6, 2048
    command = [sys.executable, "-c", PROGRAM, kind, str(layers), str(tokens)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    foretold = TrainingPass(config_of(layers), kind, tokens, layers, 0, 4).row_bytes
    assert 0.9 < foretold / json.loads(done.stdout) < 1.6, (foretold, done.stdout)


def test_more_tokens_layers_and_bytes_take_more_and_recomputing_takes_less() -> None:
    one = TrainingPass(config_of(6), "low-rank", 512, 6, 1000, 2)
    for other in (
        TrainingPass(config_of(6), "low-rank", 1024, 6, 1000, 2), TrainingPass(config_of(6), "low-rank", 512, 6, 1000, 4),
        TrainingPass(config_of(6), "whole", 512, 6, 1000, 2), TrainingPass(config_of(6, hidden_size=512), "low-rank", 512, 6, 1000, 2),
    ):  # fmt: skip
        assert other.row_bytes > one.row_bytes
    assert TrainingPass(config_of(6), "low-rank", 512, 6, 1000, 2, recompute=True).row_bytes < one.row_bytes
    assert TrainingPass(config_of(6), "low-rank", 512, 2, 1000, 2).row_bytes < one.row_bytes
    assert one.trained_bytes == 20_000 and one.operations(200) == 2 * one.operations(100) > 0


def test_sizes_are_counted_from_the_config() -> None:
    config = config_of(3)
    size, shapes = size_of(config), expected_shapes(config)
    assert size.whole == sum(math.prod(shape) for shape in shapes.values())
    assert size.largest == size.head == 2000 * 256 and size.layers == 3
    assert size.layer == sum(math.prod(shape) for name, shape in shapes.items() if name.startswith("model.layers.1."))
    linears = [shape for name, shape in shapes.items() if "_proj." in name]
    assert low_rank_parameters(config, 3, 8) == sum(8 * (rows + columns) for rows, columns in linears)
    assert computed_bytes("fp32") == 4 and computed_bytes("bf16") == 2


def giant(folder: Path, hidden: int = 16384, layers: int = 60) -> Path:
    """A model of hundreds of gigabytes that takes no disk: its weights are a hole in a file."""
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 200_000, "hidden_size": hidden, "head_dim": 128,
        "intermediate_size": 4 * hidden, "num_hidden_layers": layers, "num_attention_heads": hidden // 128, "num_key_value_heads": 8,
        "max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "hidden_act": "silu", "tie_word_embeddings": True, "rope_theta": 10000.0,
    }  # fmt: skip
    shapes = expected_shapes(
        config_of(layers, vocab_size=200_000, hidden_size=hidden, intermediate_size=4 * hidden, num_heads=hidden // 128, num_kv_heads=8,
                  head_dim=128)
    )  # fmt: skip
    header, end = dict[str, object](), 0
    for name, shape in shapes.items():
        begin, end = end, end + 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [begin, end]}
    head = json.dumps(header).encode()
    folder.mkdir()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(head).to_bytes(8, "little") + head)
        file.truncate(8 + len(head) + end)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@linux
def test_a_giant_is_refused_before_anything_is_held(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(giant(tmp_path / "giant"))
    before = own_bytes()
    with pytest.raises(
        NoRoom, match=r"Loading this model needs about (1\.\d TB|9\d\d GB) of memory, .* of it for its weights, and .* are free"
    ):
        load_module(checkpoint)
    assert own_bytes() - before < 64 << 20


def test_a_claim_of_more_layers_than_there_are_is_refused(tmp_path: Path) -> None:
    folder = giant(tmp_path / "giant", 1024, 2)
    table = json.loads((folder / "config.json").read_bytes())
    (folder / "config.json").write_text(json.dumps(table | {"num_hidden_layers": 4_000_000_000}))
    with pytest.raises(CheckpointError):
        open_checkpoint(folder)


def test_of_experts_a_token_reads_those_that_it_is_given_to() -> None:
    config = replace(config_of(2), experts=Experts(8, 2, 40, plain=(0,)))
    shapes = expected_shapes(config)
    experts = sum(math.prod(shape) for name, shape in shapes.items() if ".experts." in name)
    size = size_of(config)
    assert size.whole == sum(map(math.prod, shapes.values()))
    assert size.read == pytest.approx(size.head + size.layer * size.layers - experts * 6 / 8, abs=1)
    adapted = {name: shape for name, shape in shapes.items() if len(shape) == 2 and "_proj" in name and ".experts." not in name}
    assert low_rank_parameters(config, 2, 4) == 4 * sum(map(sum, adapted.values()))
