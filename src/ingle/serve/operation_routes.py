"""Renders operations as routes: path, query and body from the fields of what is asked, JSON from what is told."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi import Path as InPath
from pydantic import Field, create_model

from ingle.adapt.admit import TeachingLimits
from ingle.app.conversation import Held
from ingle.app.house import House
from ingle.app.operation import About, Operation, abouts, asked_of, operations, table_of
from ingle.core.config import Bounds, to_table
from ingle.core.errors import NoRight
from ingle.serve.auth import Keyed, asker, may_see_metrics, may_teach_guards, sees_everybody, service_of, teaches_guards
from ingle.serve.schema import Whole
from ingle.serve.service import Service


async def only_owner(request: Request) -> str:
    """Return "" for the user of this machine. Raises NoRight for anybody with a key."""
    if who := await asker(request):
        raise NoRight("Authorization", "A key may not do this", f"key {who}", "The owner does, at the machine itself.")
    return who


async def _held(request: Request) -> Held:
    held: Held = request.app.state.conversations
    return held


_RIGHTS = {"own": asker, "metrics": may_see_metrics, "guards": may_teach_guards, "owner": only_owner}


def operation_routes() -> APIRouter:
    """Return the routes of all operations that have one."""
    router = APIRouter(route_class=Keyed)
    for one in operations().values():
        if one.route:
            method, path = one.route.split(" ")
            told: Any = {200: {"model": one.told}}
            tag = one.run.__module__.rpartition(".")[2]
            router.add_api_route(path, _endpoint(one, method, path), methods=[method], tags=[tag], responses=told, summary=one.words)
    return router


def house_of(service: Service, who: str, sees_all: bool = False, guards: bool = False, held: Held | None = None) -> House:
    """Return the home as a key may use it."""
    return House(
        service.home, who, service.models.kept, service.record, service.chooser.forget, service.forget,
        TeachingLimits().per_hour, service.learning, sees_all=sees_all, guards=guards, held=held, at_machine=False, lent=service.engine,
    )  # fmt: skip


def _endpoint(operation: Operation, method: str, path: str) -> Callable[..., Awaitable[Any]]:
    fields = abouts(operation.asked)
    defaults = {name: one.default for name, one in inspect.signature(operation.asked).parameters.items()}
    in_path = {name for name in fields if f"{{{name}}}" in path or f"{{{name}:path}}" in path}
    bodied = [name for name in fields if name not in in_path and method not in ("GET", "DELETE")]
    parameters = [
        inspect.Parameter("service", inspect.Parameter.KEYWORD_ONLY, default=Depends(service_of), annotation=Service),
        inspect.Parameter("who", inspect.Parameter.KEYWORD_ONLY, default=Depends(_RIGHTS[operation.right]), annotation=str),
        inspect.Parameter("sees_all", inspect.Parameter.KEYWORD_ONLY, default=Depends(sees_everybody), annotation=bool),
        inspect.Parameter("guards", inspect.Parameter.KEYWORD_ONLY, default=Depends(teaches_guards), annotation=bool),
        inspect.Parameter("held", inspect.Parameter.KEYWORD_ONLY, default=Depends(_held), annotation=Held),
    ]
    for name, (type_, about, bounds) in fields.items():
        if name not in bodied:
            told: Any = InPath(description=about.words, **_limits(bounds))
            if name not in in_path:
                told = Query(description=about.words, alias=about.also[0].lstrip("-") if about.also else None, **_limits(bounds))
            annotation: Any = Annotated[type_, told]
            default = inspect.Parameter.empty if name in in_path else defaults[name]
            parameters.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation))
    if bodied:
        body = _body(operation, {name: fields[name] for name in bodied}, defaults)
        parameters.append(inspect.Parameter("body", inspect.Parameter.KEYWORD_ONLY, annotation=body))

    async def endpoint(**given: Any) -> Any:
        service, who = given.pop("service"), given.pop("who")
        house = house_of(service, who, given.pop("sees_all"), given.pop("guards"), given.pop("held"))
        body = given.pop("body", None)
        asked = asked_of(operation, given | ({} if body is None else {name: getattr(body, name) for name in bodied}))
        return table_of(await asyncio.to_thread(operation.run, house, asked))

    vars(endpoint)["__signature__"] = inspect.Signature(parameters)
    endpoint.__name__ = operation.name.replace(" ", "_")
    endpoint.__doc__ = f"{operation.words}\n\n{operation.details}".strip()
    return endpoint


def _body(operation: Operation, fields: Mapping[str, tuple[Any, About, Bounds | None]], defaults: Mapping[str, Any]) -> type[Whole]:
    made: Any = {}
    for name, (type_, about, bounds) in fields.items():
        default = ... if defaults[name] is inspect.Parameter.empty else defaults[name]
        made[name] = (type_, Field(default, description=about.words, **_limits(bounds)))
    body: type[Whole] = create_model(f"{operation.asked.__name__}Body", __base__=Whole, __doc__=operation.asked.__doc__, **made)
    return body


def _limits(bounds: Bounds | None) -> dict[str, Any]:
    return {} if bounds is None else {name: value for name, value in to_table(bounds).items() if value is not None}
