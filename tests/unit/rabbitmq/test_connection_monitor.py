from __future__ import annotations

import pytest

from amqpflow.rabbitmq.connection_monitor import ConfirmCheck, SilenceLimits, Unchanged


def test_a_value_is_unchanged_from_its_second_look_on() -> None:
    checks = [Unchanged()]
    for value in (1, 1, 1, 2, 2):
        checks.append(checks[-1].check(value))
    assert [each.checks for each in checks[1:]] == [0, 1, 2, 0, 1]


@pytest.mark.parametrize("heartbeat", [1, 2, 5, 10, 20, 60, 600])
def test_two_heartbeats_without_a_byte_are_waited_for(heartbeat: int) -> None:
    patience = SilenceLimits.of(heartbeat)
    assert patience.silent * patience.interval >= 2 * heartbeat
    assert patience.silent * patience.interval <= max(2 * heartbeat + 1, 3)
    assert patience.silent >= 12


def test_without_heartbeats_silence_is_no_sign_and_confirms_are() -> None:
    patience = SilenceLimits.of(0)
    assert patience.silent == 0
    assert patience.unconfirmed * patience.interval == 10


def dead_after(asked: ConfirmCheck, checks: int, *, answers: bool, busy: bool = False, oldest: int = 7) -> int:
    """At which look the connection is given up, 0 when it never is. A question is answered at once, or never."""
    patience, asking = SilenceLimits.of(0), False
    for look in range(1, checks + 1):
        ask, dead = asked.check(patience, oldest, asking=asking, busy=busy)
        if dead:
            return look
        asking = (asking or ask) and not answers
    return 0


def test_no_confirm_for_10_s_and_no_answer_for_half_of_that_is_a_dead_connection() -> None:
    assert dead_after(ConfirmCheck(), 60, answers=False) == 11  # the first look only learns which publish it is


def test_a_broker_that_answers_is_alive_and_one_that_is_blocked_answers_nothing() -> None:
    assert dead_after(ConfirmCheck(), 60, answers=True) == 0
    assert dead_after(ConfirmCheck(), 60, answers=False, busy=True) == 0


def test_the_time_begins_again_when_an_alarm_is_over() -> None:
    asked = ConfirmCheck()
    assert dead_after(asked, 60, answers=False, busy=True) == 0
    assert dead_after(asked, 60, answers=False) == 11


def test_each_publish_has_its_own_time() -> None:
    asked = ConfirmCheck()
    assert all(dead_after(asked, 9, answers=False, oldest=number) == 0 for number in range(1, 9))


def test_nothing_is_asked_while_all_is_confirmed() -> None:
    asked, patience = ConfirmCheck(), SilenceLimits.of(5)
    assert {asked.check(patience, 0, asking=False, busy=False) for _ in range(99)} == {(False, False)}
