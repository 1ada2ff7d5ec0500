"""What may start in a session while several things keep deliveries waiting at once."""

from __future__ import annotations

from amqpflow.services.consuming.admission import Admission


def test_one_is_tried_during_an_outage_and_no_more() -> None:
    admission = Admission()
    admission.shut()
    assert (admission.running, admission.wants_more(0)) == (False, False)
    admission.try_one()
    assert (admission.running, admission.wants_more(0), admission.wants_more(1)) == (True, True, False)
    admission.started(7)
    assert (admission.running, admission.tried) == (False, 7)


def test_one_that_cannot_be_settled_keeps_no_other_waiting() -> None:
    admission = Admission()
    assert admission.hold(3)
    assert not admission.hold(3), "that was known"
    assert (admission.paused, admission.running, admission.wants_more(5)) == (False, True, True)


def test_one_that_was_tried_and_cannot_be_settled_leaves_its_turn_to_another() -> None:
    admission = Admission()
    admission.shut()
    admission.try_one()
    admission.started(7)
    assert admission.hold(7)
    assert admission.tried is None
    admission.try_one()
    assert admission.running


def test_what_is_put_off_leaves_its_turn_to_another() -> None:
    admission = Admission()
    admission.shut()
    admission.try_one()
    admission.started(7)
    admission.not_started(7)
    assert (admission.running, admission.tried) == (True, None)
    admission.open()
    admission.not_started(7)
    assert not admission.single, "nothing is tried when there is no outage"


def test_one_that_is_handled_alone_keeps_all_others_waiting_here_and_elsewhere() -> None:
    admission = Admission()
    admission.alone = 5
    assert (admission.running, admission.wants_more(0), admission.paused) == (False, False, True)
    admission.settled(5)
    assert admission.running
    admission.elsewhere += 1
    admission.settled(5)
    assert (admission.running, admission.wants_more(0), admission.paused) == (False, False, True)
