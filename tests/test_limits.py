"""What the server bounds: handlers at once, and shares of waits and transfers."""

from __future__ import annotations

import threading

import pytest
from service_rig import PATIENCE_S, Rig, get, post, running, wait_until

from service.http.authentication import Authenticator, new_key
from service.http.exchange import Request, Response
from service.http.limits import Budget, HandlerGate
from service.http.parsing import Problem
from service.http.routes import Routes, upload


def test_a_budget_gives_what_it_has() -> None:
    budget = Budget(4)
    assert [budget.take(3), budget.take(2), budget.take(1), budget.used] == [True, False, True, 4]
    budget.give_back(3)
    assert budget.take(2)


def test_one_owner_gets_half() -> None:
    budget = Budget(8)
    assert [budget.take(owner="a", worker=False) for _ in range(5)] == [True] * 4 + [False]
    assert budget.take(owner="b", worker=False)


def test_a_quarter_is_kept_for_workers() -> None:
    budget = Budget(8)
    taken = [budget.take(owner=owner, worker=False) for owner in "aaaabbbb"]
    assert taken == [True] * 6 + [False] * 2
    assert [budget.take(owner="w", worker=True) for _ in range(3)] == [True, True, False]
    budget.give_back(owner="a")
    assert not budget.take(owner="c", worker=False)  # still fewer than a quarter free


def test_a_full_queue_refuses_and_a_free_handler_is_taken_again() -> None:
    gate, inside, leave = HandlerGate(1, 0), threading.Event(), threading.Event()

    def handler() -> None:
        with gate.enter():
            inside.set()
            leave.wait(PATIENCE_S)

    thread = threading.Thread(target=handler)
    thread.start()
    assert inside.wait(PATIENCE_S)
    with pytest.raises(Problem, match="too many requests are waiting"), gate.enter():
        pass
    leave.set()
    thread.join()
    with gate.enter():
        assert gate.running == 1


def test_without_keys_a_quarter_is_kept_for_what_only_workers_call() -> None:
    def add(routes: Routes, rig: Rig) -> None:
        def save(request: Request) -> Response:
            with open("/dev/null", "wb") as out:
                return Response(201, {"bytes": request.save(out)[0]})

        routes.add("PUT", "/clip", save, body=upload(1 << 20), roles={"client"})
        routes.add("PUT", "/artifact", save, body=upload(1 << 20), roles={"worker"})

    with running(add, http_transfers=8) as rig:
        wires = [rig.wire() for _ in range(8)]
        for wire in wires:
            wire.send(post("/clip", b"12", method="PUT")[:-1])
        wait_until(lambda: 'nvc_http_long_requests{kind="transfers"} 6' in rig.metrics.render())
        assert rig.ask(post("/clip", b"12", method="PUT")).status == 503
        assert rig.ask(post("/artifact", b"12", method="PUT")).status == 201
        for wire in wires:
            wire.close()


def test_trickling_uploads_of_one_key_stop_neither_workers_nor_other_clients() -> None:
    tokens, keys = zip(*(new_key(role) for role in ("client", "client", "worker")), strict=True)

    def add(routes: Routes, rig: Rig) -> None:
        def save(request: Request) -> Response:
            with open("/dev/null", "wb") as out:
                length, _ = request.save(out)
            return Response(201, {"bytes": length})

        routes.add("PUT", "/upload", save, body=upload(1 << 20), roles={"client", "worker"})

    def ask(rig: Rig, token: str) -> int:
        return rig.ask(post("/upload", b"12", f"Authorization: Bearer {token}", method="PUT")).status

    authenticator = Authenticator(lambda: {key.id: key for key in keys})
    with running(add, authenticator=authenticator, http_transfers=8) as rig:
        wires = [rig.wire() for _ in range(8)]
        for wire in wires:
            wire.send(post("/upload", b"12", f"Authorization: Bearer {tokens[0]}", method="PUT")[:-1])
        wait_until(lambda: 'nvc_http_apart{kind="transfers"} 4' in rig.metrics.render())
        assert [ask(rig, token) for token in tokens] == [503, 201, 201]
        assert rig.ask(get("/livez")).status == 200
        for wire in wires:
            wire.close()
