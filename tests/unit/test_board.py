"""The board: what is shown on the broker, what of it is still to be sent, and what a lost connection costs."""

from fisher_agent.board import MAX_LIVE, Board
from fisher_agent.stages import Message


def score(n: int) -> Message:
    return Message("score", str(n).encode(), qos=0)


def test_a_value_goes_out_once_until_it_changes() -> None:
    board = Board()
    assert board.show("level", 0)
    assert [(m.topic, m.payload, m.qos, m.retain) for m in board.take()] == [("level", b"0", 1, True)]
    assert not board.show("level", 0)
    assert board.take() == []
    assert board.show("level", 2)
    assert [m.payload for m in board.take()] == [b"2"]


def test_only_the_last_of_several_values_goes_out() -> None:
    board = Board()
    for value in ("a", "b", "c"):
        board.show("status", value)
    assert [m.payload for m in board.take()] == [b"c"]


def test_topics_go_out_in_the_order_of_their_last_change() -> None:
    board = Board()
    board.show("state", b"{}")
    board.show("level", 0)
    board.show("state", b'{"a":1}')
    assert [m.topic for m in board.take()] == ["level", "state"]


def test_a_new_connection_gets_everything_again() -> None:
    board = Board()
    board.show("level", 1)
    board.adopt(Message("alarm", b"{}", retain=True))
    board.take()
    board.renew()
    assert {m.topic for m in board.take()} == {"level", "alarm"}


def test_what_another_path_delivers_goes_out_here_only_at_a_renewal() -> None:
    board = Board()
    board.adopt(Message("alarm", b"{}", retain=True))
    assert board.take() == []
    assert not board.show("alarm", b"{}")
    board.renew()
    assert [m.topic for m in board.take()] == ["alarm"]


def test_what_another_path_delivers_is_not_sent_here_with_its_older_value() -> None:
    board = Board()
    board.show("alarm", b"old")
    board.adopt(Message("alarm", b"new", retain=True))
    assert [m.payload for m in board.take()] in ([], [b"new"])


def test_a_failed_sending_costs_no_retained_value_and_does_not_bring_back_an_older_one() -> None:
    board = Board()
    board.show("level", 1)
    board.show("status", "online")
    unsent = board.take()
    board.show("level", 2)
    board.put_back(unsent)
    assert {m.topic: m.payload for m in board.take()} == {"level": b"2", "status": b"online"}


def test_live_messages_follow_the_retained_ones_and_are_not_put_back() -> None:
    board = Board()
    board.say(score(1))
    board.show("level", 1)
    taken = board.take()
    assert [m.topic for m in taken] == ["level", "score"]
    board.put_back(taken)
    assert [m.topic for m in board.take()] == ["level"]


def test_live_messages_are_bounded_and_the_newest_stay() -> None:
    board = Board()
    for n in range(MAX_LIVE + 10):
        board.say(score(n))
    taken = board.take()
    assert len(taken) == MAX_LIVE
    assert taken[-1] == score(MAX_LIVE + 9)


def test_a_machine_that_leaves_is_not_shown_any_more() -> None:
    board = Board()
    board.show("b/press-07/level", 1)
    board.show("b/press-070/level", 1)
    board.show("b/press-07/state", b"{}")
    board.remove("b/press-07/")
    board.renew()
    assert [m.topic for m in board.take()] == ["b/press-070/level"]
