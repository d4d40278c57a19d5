"""Tests of `service.http.admission`: who would be too late is told at the door."""

import asyncio
import time
from pathlib import Path

import pytest

from service.errors import BadImage, Overloaded, QueueFull, ServiceError
from service.http.admission import OVERLOAD_WAIT_S, Admission, AdmissionSlot
from service.server.registry import WorkerRegistry

LATE = 1000.0


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def admission(clock: Clock) -> Admission:
    return Admission(queue_size=50, clock=clock)


def serve(admission: Admission, clock: Clock, seconds: float, times: int = 1) -> None:
    """Let requests in one after the other, each of which takes so long."""
    for _ in range(times):
        with admission.enter(clock.now + LATE) as place:
            place.received()
            clock.now += seconds


def occupy(admission: Admission, times: int, received: bool = True) -> list[AdmissionSlot]:
    places = [admission.enter(LATE + 100.0).__enter__() for _ in range(times)]
    for place in places if received else ():
        place.received()
    return places


def leave(place: AdmissionSlot, error: BaseException | None = None) -> None:
    place.__exit__(type(error) if error else None, error, None)


def test_whoever_comes_to_an_empty_house_is_let_in(admission: Admission, clock: Clock) -> None:
    serve(admission, clock, seconds=5.0)
    with admission.enter(clock.now + 0.001) as place:  # a wrong measurement must not last
        place.received()
    assert (admission.uploading, admission.working) == (0, 0)


def test_before_a_measurement_all_are_let_in_that_fit(admission: Admission, clock: Clock) -> None:
    occupy(admission, 51)
    with pytest.raises(QueueFull) as caught:
        admission.enter(clock.now + LATE)
    assert caught.value.retry_after_s == 1.0


@pytest.mark.parametrize("uploading", [0, 9], ids=["working", "uploading"])
def test_the_wait_is_predicted_from_all_in_the_house(
    admission: Admission, clock: Clock, uploading: int
) -> None:
    serve(admission, clock, seconds=0.1, times=20)
    occupy(admission, 19 - uploading)
    occupy(admission, uploading, received=False)
    # Twenty times 0.1 s, and a quarter more.
    admission.enter(clock.now + 2.51)
    with pytest.raises(Overloaded) as caught:
        admission.enter(clock.now + 2.49)
    assert caught.value.retry_after_s == pytest.approx(0.01)


def test_uploads_that_trickle_keep_nobody_out(admission: Admission, clock: Clock) -> None:
    serve(admission, clock, seconds=0.1, times=20)
    occupy(admission, 1)
    occupy(admission, 200, received=False)
    admission.enter(clock.now + 0.4)


def test_a_slow_upload_says_nothing_of_the_service(admission: Admission, clock: Clock) -> None:
    serve(admission, clock, seconds=0.1, times=20)
    (slow,) = occupy(admission, 1, received=False)
    clock.now += 60.0
    slow.received()
    clock.now += 0.1
    leave(slow)
    occupy(admission, 9)
    admission.enter(clock.now + 1.26)


def test_answers_of_one_batch_share_its_time(admission: Admission, clock: Clock) -> None:
    for _ in range(10):
        batch = occupy(admission, 10)
        clock.now += 0.5
        for place in batch:
            leave(place)
    occupy(admission, 19)  # 0.05 s each, and then a batch of 0.5 s
    admission.enter(clock.now + 1.9)
    with pytest.raises(Overloaded):
        admission.enter(clock.now + 1.7)


def test_a_service_that_became_slow_is_noticed(admission: Admission, clock: Clock) -> None:
    serve(admission, clock, seconds=0.01, times=500)
    serve(admission, clock, seconds=0.1, times=500)
    occupy(admission, 9)
    with pytest.raises(Overloaded):
        admission.enter(clock.now + 0.9)


@pytest.mark.parametrize(
    ("error", "learnt"),
    [
        (BadImage("broken"), True),
        (QueueFull("later"), False),
        (asyncio.CancelledError(), False),
    ],
)
def test_only_who_was_served_is_learnt_from(
    admission: Admission, clock: Clock, error: BaseException, learnt: bool
) -> None:
    serve(admission, clock, seconds=1.0)
    first, second = occupy(admission, 2)
    leave(first, error)
    assert admission.working == 1
    predicts_a_second = clock.now + 2 * 1.0 * 1.25 - 0.01
    if learnt:  # two in the time of one
        admission.enter(predicts_a_second)
    else:
        with pytest.raises(Overloaded):
            admission.enter(predicts_a_second)
    leave(second)


def test_who_uploads_slowly_may_find_all_places_taken(admission: Admission) -> None:
    (slow,) = occupy(admission, 1, received=False)
    places = occupy(admission, 51)
    with pytest.raises(QueueFull):
        slow.received()
    leave(slow, QueueFull("later"))
    assert (admission.uploading, admission.working) == (0, 51)
    leave(places[0])
    occupy(admission, 1)


def test_a_full_house_says_when_it_will_be_empty(admission: Admission, clock: Clock) -> None:
    serve(admission, clock, seconds=0.1, times=10)
    occupy(admission, 51)
    with pytest.raises(QueueFull) as caught:
        admission.enter(clock.now + LATE)
    assert caught.value.retry_after_s == pytest.approx(5.1)


def test_who_refused_keeps_the_wait_short_until_the_rush_is_over(
    admission: Admission, clock: Clock
) -> None:
    serve(admission, clock, seconds=0.1, times=20)
    places = occupy(admission, 29)
    with admission.enter(clock.now + 4.0):  # a long queue is no rush
        pass
    with pytest.raises(Overloaded):
        admission.enter(clock.now + 3.0)
    with pytest.raises(Overloaded) as caught:
        admission.enter(clock.now + 4.0)
    assert caught.value.retry_after_s == pytest.approx(3.75 - OVERLOAD_WAIT_S)

    def drain(left: int) -> None:
        while len(places) > left:
            clock.now += 0.1
            leave(places.pop())

    drain(8)
    with pytest.raises(Overloaded):
        admission.enter(clock.now + LATE)
    drain(6)
    with admission.enter(clock.now + LATE):  # 0.88 s
        pass
    drain(2)
    with admission.enter(clock.now + LATE):  # 0.38 s
        pass
    occupy(admission, 20)
    admission.enter(clock.now + 4.0)  # as long as before


@pytest.mark.parametrize("error", [Overloaded("late", 1.0), QueueFull("full", 1.0)])
@pytest.mark.parametrize("received", [False, True])
def test_who_is_refused_further_in_begins_a_rush_too(
    admission: Admission, clock: Clock, error: ServiceError, received: bool
) -> None:
    serve(admission, clock, seconds=0.1, times=20)
    occupy(admission, 20)
    (place,) = occupy(admission, 1, received)  # 2.8 s
    assert admission.refusal(clock.now + 4.0) is None
    leave(place, error)
    assert isinstance(admission.refusal(clock.now + 4.0), Overloaded)


def test_a_rush_at_one_worker_keeps_the_wait_short_at_all(
    clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "monotonic", clock)
    one, other = (Admission(50, clock, WorkerRegistry(tmp_path, 2)) for _ in range(2))
    for admission, count in ((one, 40), (other, 20)):
        serve(admission, clock, seconds=0.1, times=20)
        occupy(admission, count)
    assert other.refusal(clock.now + 4.0) is None  # 2.6 s
    assert isinstance(one.refusal(clock.now + 4.0), Overloaded)  # 5.1 s
    clock.now += 0.1
    assert isinstance(other.refusal(clock.now + 4.0), Overloaded)


def test_a_rush_elsewhere_is_over_when_nobody_is_refused_any_more(
    clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "monotonic", clock)
    workers = WorkerRegistry(tmp_path, 2)
    admission = Admission(50, clock, workers)
    serve(admission, clock, seconds=0.1, times=20)
    occupy(admission, 20)
    workers.signal_overload()
    clock.now += 0.5 * OVERLOAD_WAIT_S
    assert admission.refusal(clock.now + 4.0) is None


def test_one_client_does_not_keep_others_out(admission: Admission, clock: Clock) -> None:
    serve(admission, clock, seconds=0.1, times=20)
    for place in [admission.enter(LATE + 100.0, "dear").__enter__() for _ in range(40)]:
        place.received()
    with pytest.raises(Overloaded):
        admission.enter(clock.now + 4.0, "dear")
    # The rush has begun: 0.25 s for one that has its turn next.
    with admission.enter(clock.now + 4.0, "other") as place:
        place.received()
        with admission.enter(clock.now + 4.0, "other") as second:
            second.received()
        with pytest.raises(Overloaded):  # the rush goes on for who makes it
            admission.enter(clock.now + 4.0, "dear")
    assert admission.working == 40


def test_who_has_nothing_in_the_queue_need_not_keep_it_short(
    admission: Admission, clock: Clock
) -> None:
    serve(admission, clock, seconds=2.0, times=20)
    for _ in range(10):
        admission.enter(LATE + 100.0, "dear").__enter__().received()
    with pytest.raises(Overloaded):
        admission.enter(clock.now + 10.0, "dear")
    admission.enter(clock.now + 10.0, "other")  # 5 s


def test_many_clients_wait_for_each_other(admission: Admission, clock: Clock) -> None:
    serve(admission, clock, seconds=0.1, times=20)
    for number in range(40):
        admission.enter(LATE + 100.0, number).__enter__().received()
    with pytest.raises(Overloaded):
        admission.enter(clock.now + 4.0, "one more")
