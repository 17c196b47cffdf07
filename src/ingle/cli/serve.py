"""`ingle serve`."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ingle.app.settings import Settings
    from ingle.engine.threads import Cores
    from ingle.home.kept import Kept
    from ingle.home.place import Home
    from ingle.safety.policy import GuardPolicy
    from ingle.serve.app import Mount
    from ingle.serve.service import Service

EXAMPLES = """
ingle serve
ingle serve smollm2 --port 8080 --no-open
ingle serve smollm2+terse   (a model with a delta)
ingle serve --small   (on a machine with little memory)
ingle home keys add laptop && ingle serve --host 0.0.0.0   (every request then needs that key, from this machine too)
curl http://127.0.0.1:4645/v1/chat/completions -H 'Content-Type: application/json' -d '{"messages": [{"role": "user", "content": "Hi"}]}'
"""


def command(
    models: Annotated[
        list[str] | None, typer.Argument(metavar="[MODEL]...", help="Models to offer, with their deltas; by default all in this home.")
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on; every one but 127.0.0.1 needs a key.")] = None,
    port: Annotated[int | None, typer.Option(help="Port; by default 4645, 0 = any free one.")] = None,
    small: Annotated[bool | None, typer.Option(help="Take little memory: one model, no page, no learner, fewer answers at once.")] = None,
    page: Annotated[bool | None, typer.Option(help="Serve the page beside the API.")] = None,
    open_: Annotated[bool | None, typer.Option("--open/--no-open", help="Open the page in a browser; by default at a terminal.")] = None,
    format_: Annotated[str | None, typer.Option("--format", help="Format of the weights: auto, int4, int8, bf16, fp32.")] = None,
    cache: Annotated[str | None, typer.Option(help="Format of the key-value cache: auto, float16, float32, int8.")] = None,
    threads: Annotated[int | None, typer.Option(help="Number of threads; by default one per core.")] = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Set any key of config.toml.")] = None,
) -> None:
    """Serve the page and an API like OpenAI's.

    It listens on this machine alone unless --host says otherwise. Ctrl-C lets running answers finish.
    """
    from ingle.app.house import enter
    from ingle.app.settings import serve_settings
    from ingle.cli.choose import choose_or_pull
    from ingle.core.process import share_heap
    from ingle.engine.threads import Cores
    from ingle.robustness.guard_model import check_guard_models
    from ingle.safety.guard import guard_policy
    from ingle.serve.learner import learner_beside
    from ingle.serve.server import address, listen, serve

    share_heap()
    home = enter()
    options = {"chat.format": format_, "chat.cache": cache, "chat.threads": threads}
    options |= {"serve.host": host, "serve.port": port, "serve.small": small, "serve.page": page}
    settings = serve_settings(home, overrides or (), options)
    default = choose_or_pull(home, models[0] if models else settings.chat.model, settings.chat.format)
    only = tuple(models or ((default.name,) if settings.serve.small else ()))
    policy = guard_policy(home.policy)
    check_guard_models(home, policy)
    _check_home(home, settings, policy)
    bound = listen(settings.serve)
    cores = Cores(settings.chat.threads)
    service = _service(home, settings, policy, default, only, cores)
    url = address(bound)
    _tell(url, settings, only)
    opens = open_ if open_ is not None else sys.stdout.isatty()
    if opens and settings.serve.page:
        _open_later(url)
    with learner_beside(service, settings.learn, cores, overrides or ()):
        came_up = serve(service, bound, _page() if settings.serve.page else None)
    if not came_up:
        raise typer.Exit(1)


def _service(
    home: "Home", settings: "Settings", policy: "GuardPolicy", default: "Kept", only: tuple[str, ...], cores: "Cores"
) -> "Service":  # fmt: skip
    """Return the service with its default model opened, so that its faults show before the server listens."""
    from ingle.cli.progress import watching
    from ingle.engine.loading import Opener
    from ingle.home.kept import get_kept
    from ingle.serve.model_registry import ModelRegistry
    from ingle.serve.service import Service

    for name in only:
        get_kept(home, name)
    opener = Opener(settings.chat.format, cores, settings.chat.cache, apart=True)
    registry = ModelRegistry(home, opener, default.name, only)
    with watching() as watch:
        registry.put(default, opener(home, default, watch.pieces))
    return Service(home, settings.serve, settings.sampling, registry, policy)


def _check_home(home: "Home", settings: "Settings", policy: "GuardPolicy") -> None:
    """Check keys and database before the server listens. Raises ServeError if the address needs keys and there are none; ConfigError for a
    policy that names a key which there never was; HomeError and LedgerError for a database or key that can't be used."""
    from ingle.app.answer_key import answer_key
    from ingle.app.house import open_rooms
    from ingle.core.errors import ServeError
    from ingle.home.api_keys import any_keys
    from ingle.serve.live_policy import check_keys

    engine = open_rooms(home)
    try:
        answer_key(home, engine)
        if settings.serve.needs_key and not any_keys(engine):
            raise ServeError(
                "serve.host",
                f"Others can reach {settings.serve.host}, so the server needs a key, and there is none",
                "",
                "Make one: ingle home keys add NAME",
            )
        check_keys(policy, engine)
    finally:
        engine.dispose()


def _page() -> "Mount":
    """Return what adds the page. Its rooms take memory, so they are imported where there is one."""
    from ingle.page.mount import add_page

    return add_page


def _tell(at: str, settings: "Settings", only: tuple[str, ...]) -> None:
    """Print the address, for people and for scripts that read the first line, and what a small server does without."""
    from ingle.core.errors import size

    print(f"Ingle is at {at}" + ("" if settings.serve.page else "  (API only)"), flush=True)
    if settings.serve.small:
        chat, limits, learns = settings.chat, settings.serve, settings.learn.worker
        facts = [f"models {', '.join(only)}", *(text for text, off in (("no page", not limits.page), ("no learner", not learns)) if off)]
        facts += [f"keys and values in {chat.cache}", f"threads {chat.threads}", f"{limits.places} answers at once, {limits.queue} waiting"]
        print(f"Small: {'; '.join(facts)}.", flush=True)
    print(f"Conversations may take {size(settings.serve.state_bytes)} of memory (serve.state_mb).", flush=True)
    print(f"OpenAI's clients: base_url {at}/v1    In the terminal instead: ingle chat    Ctrl-C stops.", flush=True)


def _open_later(at: str) -> None:
    """Open a browser when the server answers. Silent on a machine without one."""
    import threading
    import time
    import urllib.request
    import webbrowser

    def wait() -> None:
        for _ in range(100):
            try:
                urllib.request.urlopen(f"{at}/health", timeout=2).close()
            except OSError:
                time.sleep(0.1)
            else:
                webbrowser.open(at)
                return

    threading.Thread(target=wait, daemon=True).start()
