"""Prompt tuning: learnt embeddings of tokens that stand before every text (arXiv 2104.08691)."""

from torch import Tensor

from ingle.model.module import CausalLM
from ingle.train.low_rank import replace_module
from ingle.tuning.tuning_method import Attached, attached
from ingle.tuning.virtual import EMBEDDING, PromptEmbedding, VirtualSettings, check_virtual, prompt_tensors, some_tokens

KIND = "prompt"
RATE = 1e-2
Settings = VirtualSettings


def attach(module: CausalLM, layers: tuple[int, ...], settings: VirtualSettings, seed: int) -> Attached:
    """See `tuning.tuning_method.Method`. Unlike most, it changes the module's output: every text now has something before it.

    It begins with the embeddings of some frequent tokens. Raises ConfigError unless all layers are asked for: all of them read a prompt.
    """
    check_virtual(module, layers, settings)
    ids = some_tokens(module.config.vocab_size, settings.tokens, seed)
    embedding = PromptEmbedding(module.model.embed_tokens, ids)
    replace_module(module, EMBEDDING, embedding)

    def collect() -> dict[str, Tensor]:
        return prompt_tensors(module, embedding.prompt.detach().float())

    return attached(module, (EMBEDDING,), {f"{EMBEDDING}.prompt": embedding.prompt}, collect, settings.tokens)
