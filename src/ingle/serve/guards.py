"""`/v1/guards`: what each guard does and setting it; teaching the judges that they were wrong, and taking it back.

Guards act for everybody whom this server answers, so a key needs the right to it (`ingle home keys add NAME --guards`): a guest must not be
able to have them let attacks on others pass. What holds for a guest it may see, but no other key's name. An answer is taken as an example
only by whoever asked for it.
"""

import asyncio
from typing import Any

from fastapi import APIRouter, Depends

from ingle.adapt.guard_modes import GuardSet, GuardSetting, guard_settings, says_nothing_of, set_guard
from ingle.adapt.guards import GuardsTaught, guards_taught, plain_texts, take_back, teach_guards, texts_of_answer
from ingle.core.errors import ConfigError, RequestError
from ingle.home.asked_once import never_again, was_asked
from ingle.safety.guard import DOES, LABELS, WORDS, by_mildness, guard_policy, known_guard
from ingle.safety.judge import Teaching
from ingle.safety.policy import Mode
from ingle.serve.auth import Keyed, asker, may_teach_guards, service_of, teaches_guards
from ingle.serve.live_policy import check_keys
from ingle.serve.schema import GuardAnswer, GuardMode, GuardTeaching
from ingle.serve.service import Service

router = APIRouter(route_class=Keyed)
ASKED = "harm"  # the guard that the owner is asked about once; also the question's name in the database


@router.get("/v1/guards", tags=["safety"])
async def guards(
    service: Service = Depends(service_of), who: str = Depends(asker), may: bool = Depends(teaches_guards)  # noqa: B008
) -> dict[str, Any]:  # fmt: skip
    """List the guards: what each does, what it can do, and whether policy.toml says it; for a key without the right to set them, what holds
    for it."""
    await service.live.renewed()
    rows = await asyncio.to_thread(_tables, service, who, may)
    asked = not may or not says_nothing_of(service.policy, ASKED) or await asyncio.to_thread(was_asked, service.engine, ASKED)
    modes = known_guard(ASKED).modes
    return {"object": "list", "data": rows, "question": None if asked else {"usual": WORDS[modes[0]], "choices": _choices(modes)}}


@router.post("/v1/guards/question", tags=["safety"])
async def answer_question(
    body: GuardAnswer, service: Service = Depends(service_of), who: str = Depends(may_teach_guards)  # noqa: B008
) -> dict[str, Any]:  # fmt: skip
    """Answer the question that the owner of a home is asked once: what happens to requests for harm. It is not asked again."""
    if body.mode:
        await set_here(service, ASKED, body.mode, who)
    await asyncio.to_thread(never_again, service.engine, ASKED)
    return {"object": "guards.question", "answered": True}


@router.put("/v1/guards/{name}", tags=["safety"])
async def set_mode(
    name: str, body: GuardMode, service: Service = Depends(service_of), who: str = Depends(may_teach_guards)  # noqa: B008
) -> dict[str, Any]:  # fmt: skip
    """Set what a guard does, for everybody. It is written into policy.toml, and acts from the next request on."""
    done = await set_here(service, name, body.mode, who)
    [row] = [one for one in await asyncio.to_thread(_tables, service, who, True) if one["guard"] == name]
    return {**row, "before": done.before, "changed": done.changed}


async def set_here(service: Service, name: str, word: str, who: str) -> GuardSet:
    """Set a guard of the home of a running server, which goes by it at once. `who`: id of a key that may. Raises as `set_guard` does."""

    def act() -> GuardSet:
        check_keys(guard_policy(service.home.policy), service.engine)  # or the server would not go by what is written
        return set_guard(service.home, name, word, service.record, who)

    done = await asyncio.to_thread(act)
    await service.live.renewed()
    return done


def settings_for(service: Service, who: str, may: bool) -> list[GuardSetting]:
    """Return how the guards are set; `may`: for somebody who may set them, else what holds for the key `who`. Reads policy.toml.

    Raises ConfigError for one that can't be read; where the home lies, only those who may set it learn.
    """
    if may:
        return list(guard_settings(service.home))
    try:
        return [one.without_keys() for one in guard_settings(service.home, service.key_name(who))]
    except ConfigError:
        raise ConfigError("policy.toml", "can't be read now", "", "Ask whoever keeps this house.") from None


def _tables(service: Service, who: str, may: bool) -> list[dict[str, Any]]:
    return [{"object": "guard", **one.table(), **_words(one)} for one in settings_for(service, who, may)]


def _words(one: GuardSetting) -> dict[str, Any]:
    """Return what people read of a guard: what it does, what it could do, and what is set for single models and keys."""
    others = [f"Set for the {other.kind} {other.name} in policy.toml: {LABELS[other.mode]}." for other in one.others]
    return {"label": LABELS[one.mode], "does": DOES[one.mode], "choices": _choices(one.file.modes), "said_of_others": others}


def _choices(modes: tuple[Mode, ...]) -> list[dict[str, str]]:
    return [{"word": WORDS[mode], "label": LABELS[mode], "does": DOES[mode]} for mode in by_mildness(modes)]


@router.post("/v1/guards/teach", tags=["safety"])
async def teach(
    body: GuardTeaching, service: Service = Depends(service_of), who: str = Depends(may_teach_guards)  # noqa: B008
) -> dict[str, Any]:  # fmt: skip
    """Teach the judges that a text, or what was judged before a stored answer, is harmless, or harmful. It acts on the next request."""
    if bool(body.text) == bool(body.completion_id):
        raise RequestError("text", "Give either a text or a completion_id", "both" if body.text else "neither")

    def take() -> GuardsTaught:
        texts = plain_texts([body.text]) if body.text else texts_of_answer(service.engine, who, body.completion_id)
        return teach_guards(service.home, texts, body.harmful, service.record, who)

    taught = await asyncio.to_thread(take)
    about = {"harmful": body.harmful, "changed": taught.changed, "judge": taught.judge}
    return {"id": taught.id or None, "object": "guards.taught", **about}


@router.get("/v1/guards/taught", tags=["safety"])
async def taught(service: Service = Depends(service_of), _who: str = Depends(may_teach_guards)) -> dict[str, Any]:  # noqa: B008
    """List what the judges were taught, the newest first: ids and sides, no words."""
    found = await asyncio.to_thread(guards_taught, service.home)
    return {"object": "list", "data": [_table(one) for one in reversed(found)]}


@router.delete("/v1/guards/taught/{id_}", tags=["safety"])
async def untaught(
    id_: str, service: Service = Depends(service_of), who: str = Depends(may_teach_guards)  # noqa: B008
) -> dict[str, Any]:  # fmt: skip
    """Take back one correction. The judges are then, to the bit, what they were without it."""
    gone = await asyncio.to_thread(take_back, service.home, id_, service.record, who)
    return {**_table(gone), "deleted": True}


def _table(one: Teaching) -> dict[str, Any]:
    return {"id": one.id, "object": "guards.taught", "at": one.at, "harmful": one.harmful, "changed": len(one.pulls)}
