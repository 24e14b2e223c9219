"""The schedule falls to zero at its end; moving the end inside the decay never lifts the learning rate."""

from hypothesis import given
from hypothesis import strategies as st

from textmill.training.schedule import Schedule

schedules = st.builds(
    Schedule,
    total=st.integers(1, 5000),
    warmup=st.integers(1, 100),
    decay_share=st.floats(0.05, 1.0),
)


@given(schedules)
def test_levels_lie_between_zero_and_one_and_end_at_zero(schedule):
    levels = [schedule.level(step) for step in range(schedule.total)]
    assert all(0 <= level <= 1 for level in levels)
    assert schedule.level(schedule.total) == 0
    after = levels[max(schedule.decay_start, schedule.warmup) :]
    assert after == sorted(after, reverse=True)


@given(schedules, st.lists(st.tuples(st.integers(0, 400), st.integers(1, 6000)), max_size=6))
def test_moving_the_end_keeps_the_level_continuous(schedule, moves):
    step = 0
    for ahead, total in moves:
        step += ahead
        if step >= schedule.total:
            break
        before = schedule.level(step)
        schedule = schedule.moved(step, total)
        assert schedule.total > step
        if step >= schedule.decay_start:
            assert schedule.level(step) <= before + 1e-9
        assert schedule.level(schedule.total) == 0


def test_the_stable_part_is_at_full_rate():
    schedule = Schedule(total=1000, warmup=20, decay_share=0.5)
    assert schedule.level(0) == 1 / 20
    assert schedule.level(300) == 1
    assert schedule.level(750) == 0.5
