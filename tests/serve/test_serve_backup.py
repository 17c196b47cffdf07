"""A backup of a home whose server goes on answering."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ingle.home.place import Home
from tests.cli.place import ingle
from tests.serve.servers import serving
from tests.serve.test_serve_durability import Told, check_nothing_is_lost
from tests.waiting import wait_until


def test_while_it_serves_a_home_is_backed_up_and_answers_elsewhere_as_here(served_home: Path, tmp_path: Path) -> None:
    told, rest = Told(), threading.Event()
    with serving(served_home) as server, ThreadPoolExecutor(4) as pool:
        first = server.chat("before", store=True).json()
        asking = [pool.submit(told.ask, server, number, rest) for number in range(4)]
        try:
            counts = list[int]()
            for number in range(3):
                wait_until(lambda: len(told.finished) > max(counts, default=-1), "somebody got an answer")
                counts.append(len(told.finished))
                ingle(served_home, "backup", str(tmp_path / f"{number}.tar"))
        finally:
            rest.set()
        for one in asking:
            one.result()
        assert not told.refused, "nobody was turned away meanwhile"
        assert len(told.finished) > counts[-1] > counts[0]
        after = server.chat("after", seed=3, max_tokens=40).json()
        names = set(told.finished)
    for number, before in enumerate(counts):
        back = tmp_path / f"back{number}"
        ingle(back, "restore", str(tmp_path / f"{number}.tar"))
        ingle(back, "verify", "--models")
        with serving(back) as server:
            assert server.chat("after", seed=3, max_tokens=40).json()["choices"] == after["choices"]
            assert (
                server.get(f"/v1/responses/{first['id']}").json()["output"][0]["content"][0]["text"]
                == first["choices"][0]["message"]["content"]
            )
            known = {row.values["id"] for row in server.answers()} & names
        assert len(known) >= before, "what was told before the backup began is in it"
        check_nothing_is_lost(Home(back), Told({name: told.finished[name] for name in known}))
