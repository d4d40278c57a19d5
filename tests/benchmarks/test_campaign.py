"""Tests of `benchmarks.serving.campaign`: what is measured when, and whose answers count."""

import itertools
import json

import pytest

from benchmarks.serving.campaign import round_order, takes_crops
from benchmarks.serving.peers.model import Found, open_model
from benchmarks.serving.pictures import jpeg
from benchmarks.serving.server import PEERS, ServerError, Variant, check_answer, environ_of
from service.pictures.search import NO_SEARCH

OURS = [Variant("ours", "ours", workers) for workers in (1, 2)]
MOSEC = [Variant("mosec", "plain", workers) for workers in (1, 2)]


def test_the_ceiling_is_measured_right_before_what_is_compared_with_it() -> None:
    """Of the service with all cores: that is whose share of it is a goal."""
    for variants in itertools.permutations([*OURS, *MOSEC]):
        order = list(round_order(list(variants), 2))
        assert [step for step in order if step is not None] == list(variants)
        assert order.count(None) == 1
        assert order[order.index(None) + 1] == OURS[1]


def test_the_ceiling_is_measured_first_where_nothing_is_compared_with_it() -> None:
    assert list(round_order(MOSEC, 2)) == [None, *MOSEC]
    assert list(round_order([], 2)) == []


def test_servers_are_told_whether_to_look_for_faces() -> None:
    asked = {crops: environ_of(OURS[0], 8000, crops)["DETECT"] for crops in (True, False)}
    assert asked == {True: "never", False: "auto"}


def test_crops_are_for_those_that_need_not_look_for_faces() -> None:
    servers = [Variant(peer, PEERS[peer].engine, 1) for peer in PEERS]
    assert [server.peer for server in servers if not takes_crops(server)] == ["fer"]


def test_an_answer_with_other_faces_is_refused() -> None:
    face, other = {"joy": 0.9, "fear": 0.1}, {"joy": 0.5, "fear": 0.5}

    def answer(*faces: dict[str, float]) -> bytes:
        return json.dumps({"faces": [{"probabilities": face} for face in faces]}).encode()

    check_answer(answer(face, other), [face, other])
    with pytest.raises(ServerError, match="found 1 faces, expected 2"):
        check_answer(answer(face), [face, other])
    with pytest.raises(ServerError, match=r"joy is 0.5, expected 0.900"):
        check_answer(answer(other), [face])


def test_peers_classify_the_faces_of_several_pictures_together() -> None:
    model = open_model()
    one = model.find(jpeg("48"), NO_SEARCH)
    none, three = Found([], one.faces[:0]), Found(3 * one.boxes, one.faces.repeat(3, axis=0))

    answers = model.answer([one, none, three])

    assert [len(answer["faces"]) for answer in answers] == [1, 0, 3]
    assert {len(face["probabilities"]) for face in answers[2]["faces"]} == {8}
    assert model.answer([none]) == [{"faces": []}]
