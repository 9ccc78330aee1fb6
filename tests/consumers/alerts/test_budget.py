"""What one machine may cost the others, by the log's time alone."""

from consumers.alerts.budget import LINES_BURST_MAX, LINES_PER_S_MAX, Budget

S = 10**9
NOW_NS = 1_764_000_000 * S


def test_after_quiet_there_is_a_burst_and_nothing_to_store():
    budget = Budget()
    assert budget.credit(NOW_NS) == LINES_BURST_MAX
    assert budget.spent_until_ns == 0


def test_what_is_spent_comes_back_with_the_logs_time():
    budget = Budget()
    budget.credit(NOW_NS)
    budget.spend(NOW_NS, LINES_BURST_MAX)
    assert budget.credit(NOW_NS) == 0
    assert budget.credit(NOW_NS + S) == LINES_PER_S_MAX
    assert budget.credit(NOW_NS + 3600 * S) == LINES_BURST_MAX
    assert budget.spent_until_ns == 0


def test_more_than_there_is_is_a_debt_of_no_more_than_all():
    budget = Budget()
    budget.spend(NOW_NS, 10 * LINES_BURST_MAX)
    assert budget.credit(NOW_NS) == 0
    assert budget.credit(NOW_NS + S) == LINES_PER_S_MAX


def test_a_log_whose_clock_is_set_back_takes_nothing_away_for_long():
    budget = Budget()
    budget.spend(NOW_NS, 5)
    back_ns = NOW_NS - 3600 * S
    assert budget.credit(back_ns) == 0
    assert budget.credit(back_ns + S) == LINES_PER_S_MAX


def test_it_goes_on_where_another_stopped():
    one = Budget()
    one.credit(NOW_NS)
    one.spend(NOW_NS, 1234)
    assert Budget(one.spent_until_ns).credit(NOW_NS + S // 10) == one.credit(NOW_NS + S // 10) == 20_000 - 1234 + 200


def test_exceeded_lasts_until_all_is_given_back():
    budget = Budget()
    budget.spend(NOW_NS, LINES_BURST_MAX)
    budget.exceeded = True
    budget.credit(NOW_NS + 9 * S)
    assert budget.exceeded
    budget.credit(NOW_NS + 10 * S)
    assert not budget.exceeded
