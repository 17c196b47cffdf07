"""Models of the hub that Ingle knows by a short name: one GGUF file of a repository each, smallest first; and guard models, whose makers
write safetensors.

Which commit that is can't be known before somebody pulls it. The first pull pins it, with the SHA-256 of the file, as for every other
repository (home/hub.py). Sizes follow from the shape (home/model_size.py) and are about; the hub says the exact ones at the pull.
"""

from dataclasses import dataclass

from ingle.home.model_size import ModelShape, cache_bytes, file_bytes, read_bytes

CONTEXT = 4096  # tokens of a conversation for which memory is stated
PROCESS_BYTES = 200_000_000  # memory of the program itself beside weights and cache (docs/catalogue.md)


@dataclass(frozen=True, slots=True)
class HubModel:
    """A model of the hub under a short name."""

    name: str
    title: str
    licence: str  # SPDX, or the licence's own name
    repo: str  # `org/name`
    file: str  # path of the GGUF file in it; empty = its safetensors
    quantisation: str  # see `model_size.QUANTISATIONS`
    shape: ModelShape
    note: str = ""  # a remark for whoever pulls it

    @property
    def nbytes(self) -> int:
        """About the bytes of the file."""
        return file_bytes(self.shape, self.quantisation)

    @property
    def disk_bytes(self) -> int:
        """About the bytes on disk: the file, and its pack."""
        return self.nbytes + sum(read_bytes(self.shape, self.quantisation).values())

    @property
    def memory_bytes(self) -> int:
        """About the memory that an answer takes, with a conversation of `CONTEXT` tokens."""
        return self.nbytes + cache_bytes(self.shape, CONTEXT) + PROCESS_BYTES


_META = "Meta's licence: it has terms of use, and names who may not use it."

HUB_MODELS = {
    one.name: one
    for one in (
        HubModel(
            "smollm2-360m", "SmolLM2 360M Instruct", "Apache-2.0", "HuggingFaceTB/SmolLM2-360M-Instruct-GGUF",
            "smollm2-360m-instruct-q8_0.gguf", "Q8_0", ModelShape(32, 960, 2560, 15, 5, 64, 49152),
        ),
        HubModel(
            "qwen3-0.6b", "Qwen3 0.6B", "Apache-2.0", "Qwen/Qwen3-0.6B-GGUF", "Qwen3-0.6B-Q8_0.gguf", "Q8_0",
            ModelShape(28, 1024, 3072, 16, 8, 128, 151936),
        ),
        HubModel(
            "smollm2-1.7b", "SmolLM2 1.7B Instruct", "Apache-2.0", "HuggingFaceTB/SmolLM2-1.7B-Instruct-GGUF",
            "smollm2-1.7b-instruct-q4_k_m.gguf", "Q4_K_M", ModelShape(24, 2048, 8192, 32, 32, 64, 49152),
        ),
        HubModel(
            "qwen3-1.7b", "Qwen3 1.7B", "Apache-2.0", "unsloth/Qwen3-1.7B-GGUF", "Qwen3-1.7B-Q4_K_M.gguf", "Q4_K_M",
            ModelShape(28, 2048, 6144, 16, 8, 128, 151936),
        ),
        HubModel(
            "smollm3-3b", "SmolLM3 3B", "Apache-2.0", "ggml-org/SmolLM3-3B-GGUF", "SmolLM3-Q4_K_M.gguf", "Q4_K_M",
            ModelShape(36, 2048, 11008, 16, 4, 128, 128256),
        ),
        HubModel(
            "llama3.2-3b", "Llama 3.2 3B Instruct", "Llama-3.2-Community", "bartowski/Llama-3.2-3B-Instruct-GGUF",
            "Llama-3.2-3B-Instruct-Q4_K_M.gguf", "Q4_K_M", ModelShape(28, 3072, 8192, 24, 8, 128, 128256), _META,
        ),
        HubModel(
            "phi4-mini", "Phi-4-mini Instruct, 3.8B", "MIT", "unsloth/Phi-4-mini-instruct-GGUF", "Phi-4-mini-instruct-Q4_K_M.gguf",
            "Q4_K_M", ModelShape(32, 3072, 8192, 24, 8, 128, 200064, fused=True),
        ),
        HubModel(
            "mistral-7b", "Mistral 7B Instruct v0.3", "Apache-2.0", "bartowski/Mistral-7B-Instruct-v0.3-GGUF",
            "Mistral-7B-Instruct-v0.3-Q4_K_M.gguf", "Q4_K_M", ModelShape(32, 4096, 14336, 32, 8, 128, 32768, tied=False),
        ),
        HubModel(
            "qwen3-8b", "Qwen3 8B", "Apache-2.0", "Qwen/Qwen3-8B-GGUF", "Qwen3-8B-Q4_K_M.gguf", "Q4_K_M",
            ModelShape(36, 4096, 12288, 32, 8, 128, 151936, tied=False),
        ),
    )
}  # fmt: skip

# Models that judge (robustness/guard_model.py). They are never offered to talk with unasked.
GUARD_MODELS = {
    one.name: one
    for one in (
        HubModel(
            "guard", "Qwen3Guard-Gen 0.6B, a guard", "Apache-2.0", "Qwen/Qwen3Guard-Gen-0.6B", "", "BF16",
            ModelShape(28, 1024, 3072, 16, 8, 128, 151936, tied=False),
            'It judges requests and answers: [guards.harm] by = "both" in policy.toml. A question costs its reading, not this speed.',
        ),
        HubModel(
            "llama-guard", "Llama Guard 3 1B, a guard", "Llama-3.2-Community", "meta-llama/Llama-Guard-3-1B", "", "BF16",
            ModelShape(16, 2048, 8192, 32, 8, 64, 128256, tied=False),
            f"{_META} The hub asks you to accept it first.",
        ),
        HubModel(
            "granite-guardian", "Granite Guardian 3.1 2B, a guard", "Apache-2.0", "ibm-granite/granite-guardian-3.1-2b", "", "BF16",
            ModelShape(40, 2048, 8192, 32, 8, 64, 49155),
            'It judges one risk: "harm".',
        ),
    )
}  # fmt: skip
ON_HUB = HUB_MODELS | GUARD_MODELS  # all models of the hub that have a short name
