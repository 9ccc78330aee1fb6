"""Of an outage two lines stand in the log, however long it is and whatever was answered meanwhile."""

import logging

from consumers.alerts.outage import Outage
from consumers.alerts.outbox import Answer
from tests.consumers.alerts._cases import S


def test_nothing_is_said_of_who_takes_or_refuses_alerts():
    outage = Outage("http://am")
    assert outage.answered(Answer.TAKEN, "", 0, 0) is None
    assert outage.answered(Answer.REFUSED, "HTTP 400", 1, S) is None


def test_it_says_why_it_began_and_how_long_it_was():
    outage = Outage("http://am")
    first = outage.answered(Answer.FAILED, "HTTP 503", 7, 10 * S)
    assert first == (logging.ERROR, "http://am takes no alerts, 7 wait and nothing is lost: HTTP 503")
    assert outage.answered(Answer.FAILED, "HTTP 429", 8, 20 * S) is None
    last = outage.answered(Answer.TAKEN, "", 9, 3610 * S)
    assert last == (logging.INFO, "http://am takes alerts again after 3,600 s and 2 tries, 9 wait")
    assert outage.answered(Answer.TAKEN, "", 0, 3611 * S) is None


def test_one_that_refuses_what_is_in_it_is_there_again():
    outage = Outage("http://am")
    outage.answered(Answer.FAILED, "refused", 1, 0)
    assert outage.answered(Answer.REFUSED, "HTTP 400", 1, S).level == logging.INFO
    assert outage.answered(Answer.FAILED, "refused", 1, 2 * S).level == logging.ERROR
