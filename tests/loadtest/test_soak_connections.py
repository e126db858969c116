from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from bench.soak_connections import Run, Standing, disagreements, left_behind, unaccounted
from bench.watched_server import PASSING, Held, count_held
from erg_server.transports.grpc.limits import BufferAccount

from tests.server.transports.grpc.peer import Peer

AT_REST = Standing(
    held=Held(connections=0, held_bytes=0, passing={}),
    descriptors={"front": 14, "workers": 12},
    waiting=0,
    successes=10,
    failures={"REJECTED": 1, "CANCELED": 0, "BACKEND": 0, "OTHER": 0},
)
COUNTS = Counter(sent=100, answered=80, cancelled=9, deadline=8, lost=3, wrong=0, failed=0)


def after(**changes):
    told = {"successes": 95.0, "failures": {"REJECTED": 4, "CANCELED": 9, "BACKEND": 0, "OTHER": 0}, **changes}
    return replace(AT_REST, **told)


def test_a_run_whose_calls_all_ended_as_their_callers_wished_has_no_problem():
    assert unaccounted(Run(counts=COUNTS), 100) == []
    assert disagreements(COUNTS, AT_REST, after()) == []
    assert left_behind(AT_REST, after()) == []


@pytest.mark.parametrize(
    "changes",
    [{"answered": 79}, {"answered": 79, "wrong": 1}, {"answered": 79, "failed": 1}, {"lost": 0, "cancelled": 12}],
)
def test_a_call_that_ended_otherwise_or_not_at_all_is_found(changes):
    assert unaccounted(Run(counts=Counter({**COUNTS, **changes})), 100)


def test_requests_that_were_never_sent_are_found():
    assert unaccounted(Run(counts=COUNTS), 101)


@pytest.mark.parametrize(
    "changes",
    [
        {"successes": 89.0},  # fewer than were answered
        {"successes": 99.0},  # more than were sent
        {"failures": {"REJECTED": 4, "CANCELED": 8, "BACKEND": 1}},
        {"failures": {"REJECTED": 4, "CANCELED": 8, "OTHER": 1}},
    ],
)
def test_counts_of_the_server_that_cannot_be_true_are_found(changes):
    assert len(disagreements(COUNTS, AT_REST, after(**changes))) == 1


def test_requests_that_neither_server_nor_callers_account_for_are_found():
    counts = Counter({**COUNTS, "answered": 70, "failed": 10})
    assert len(disagreements(counts, AT_REST, after(successes=85.0, failures={"REJECTED": 1}))) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"held": Held(connections=1, held_bytes=0, passing={})},
        {"held": Held(connections=0, held_bytes=1, passing={})},
        {"held": Held(connections=0, held_bytes=0, passing={"Stream": 1})},
        {"waiting": 1.0},
        {"descriptors": {"front": 15, "workers": 12}},
        {"descriptors": {"front": 14, "workers": 11}},
    ],
)
def test_what_is_left_of_a_run_is_found(changes):
    assert left_behind(AT_REST, after(**changes))


def test_what_a_process_holds_shows_in_its_objects():
    before = count_held()
    account = BufferAccount()
    account.held_bytes = 700
    peer = Peer(account=account)
    peer.send(peer.headers(1))
    held = count_held()
    assert held.held_bytes == before.held_bytes + 700
    assert held.passing["Stream"] == before.passing.get("Stream", 0) + 1
    assert held.passing["Connection"] == before.passing.get("Connection", 0) + 1
    assert set(held.passing) <= PASSING
