from __future__ import annotations

import collections
import itertools
import threading
from typing import TYPE_CHECKING, Any

import leveret
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def pair(app: leveret.App) -> leveret.NativeTask[[int, int], int]:
    """A task of two integers."""

    @app.native
    def pair(a: int, b: int = 2) -> int:
        raise NotImplementedError

    return pair


Pair = leveret.NativeTask[[int, int], int]


def waiting(app: leveret.App, queue: str = "native") -> int:
    """Return how many jobs wait in the queue."""
    return int(app.client().stats(queue)[0]["ready_jobs"])


def test_tuples_named_tuples_and_args_are_jobs(app: leveret.App, pair: Pair) -> None:
    named = collections.namedtuple("named", "a b")  # noqa: PYI024 - an untyped one is what is meant
    jobs: list[Any] = [(1, 2), (1,), named(1, 2), pair.args(1, 2), pair.args(b=1, a=2)]
    assert len(pair.send_many(jobs)) == 5
    assert waiting(app) == 5


@pytest.mark.parametrize("item", [5, "ab", [1, 2], {"a": 1}, None])
def test_what_is_no_tuple_is_refused_with_a_remedy(pair: Pair, item: Any) -> None:
    with pytest.raises(leveret.SendManyError, match=r"for one argument write \(x,\)") as caught:
        pair.send_many([(1, 2), item])
    assert caught.value.index == 1
    assert isinstance(caught.value.__cause__, TypeError)


def test_no_iterable_is_a_type_error(pair: Pair) -> None:
    with pytest.raises(TypeError, match="not iterable"):
        pair.send_many(5)


@pytest.mark.parametrize("good", [0, 1, 9_999])
def test_what_came_before_a_bad_job_is_durable_and_nothing_after_it_is_sent(
    app: leveret.App, pair: Pair, good: int
) -> None:
    taken = []

    def jobs() -> Iterator[Any]:
        for i in range(20_000):
            taken.append(i)
            yield (i, "x" if i == good else i)

    with pytest.raises(leveret.SendManyError) as caught:
        pair.send_many(jobs())
    assert caught.value.index == good
    assert len(caught.value.accepted) == good
    assert isinstance(caught.value.__cause__, TypeError)
    assert "args[1]: expected int, got str" in str(caught.value)
    assert len(taken) == good + 1, "nothing more was taken from the iterable"
    if good:
        assert waiting(app) == good
        assert len(list(caught.value.accepted.ids)) == good


def test_what_the_iterable_raises_is_the_cause(app: leveret.App, pair: Pair) -> None:
    def jobs() -> Iterator[tuple[int, int]]:
        yield (1, 2)
        raise LookupError("the database is gone")

    with pytest.raises(leveret.SendManyError, match="the database is gone") as caught:
        pair.send_many(jobs())
    assert isinstance(caught.value.__cause__, LookupError)
    assert caught.value.index == waiting(app) == 1


def test_ctrl_c_in_the_iterable_stays_ctrl_c(app: leveret.App, pair: Pair) -> None:
    def jobs() -> Iterator[tuple[int, int]]:
        yield (1, 2)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pair.send_many(jobs())
    assert waiting(app) == 1


def test_an_endless_iterable_ends_at_its_first_bad_job(pair: Pair) -> None:
    jobs: Any = itertools.chain(((i, i) for i in range(300_000)), iter(lambda: ("x",), None))
    with pytest.raises(leveret.SendManyError) as caught:
        pair.send_many(jobs)
    assert caught.value.index == 300_000


def test_a_generator_may_send_itself(app: leveret.App, pair: Pair) -> None:
    other = pair.options(queue="other")

    def jobs() -> Iterator[tuple[int, int]]:
        for i in range(10):
            other.send(i, i)
            yield (i, i)

    assert len(pair.send_many(jobs())) == 10
    assert waiting(app, "other") == waiting(app) == 10


def test_threads_send_at_once(app: leveret.App, pair: Pair) -> None:
    sent: list[leveret.Jobs[int]] = []

    def send(n: int) -> None:
        sent.append(pair.send_many((n, i) for i in range(20_000)))
        for i in range(20):
            pair.send(n, i)

    threads = [threading.Thread(target=send, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert waiting(app) == 8 * 20_020
    ids = set(itertools.chain.from_iterable(jobs.ids for jobs in sent))
    assert len(ids) == 8 * 20_000


def test_the_gil_is_free_while_the_broker_is_waited_for(pair: Pair) -> None:
    turns = 0
    done = threading.Event()

    def count() -> None:
        nonlocal turns
        while not done.is_set():
            turns += 1

    counter = threading.Thread(target=count)
    counter.start()
    for i in range(50):
        pair.send(i, i)
    done.set()
    counter.join()
    assert turns > 50


def test_a_closed_app_refuses(app: leveret.App, pair: Pair) -> None:
    app.close()
    for send in (lambda: pair.send(1, 2), lambda: pair.send_many([(1, 2)])):
        with pytest.raises(leveret.Closed, match="it was closed"):
            send()


def test_closing_amid_send_many_is_an_error_with_what_was_accepted(app: leveret.App, pair: Pair) -> None:
    def jobs() -> Iterator[tuple[int, int]]:
        for i in range(200_000):
            if i == 100_000:
                app.close()
            yield (i, i)

    with pytest.raises(leveret.SendManyError) as caught:
        pair.send_many(jobs())
    assert isinstance(caught.value.__cause__, leveret.Error)
    assert caught.value.index == len(caught.value.accepted)
    with app:
        assert waiting(app) == caught.value.index
