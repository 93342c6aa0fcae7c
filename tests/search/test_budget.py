"""Limits as texts and numbers, and which of them measurements break."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.search.budget import Budget, amount_text


@pytest.mark.parametrize(
    "name, text, expected",
    [
        ("max_flash", "256 KiB", 262144),
        ("max_flash", "1.5MiB", 1.5 * 2**20),
        ("max_ram", " 64kB ", 64000),
        ("max_ram", "512", 512),
        ("max_size", "2 MB", 2_000_000),
        ("max_latency_ms", "20 ms", 20),
        ("max_latency_ms", "0.5 s", 500),
        ("max_latency_ms", "800us", 0.8),
        ("max_accuracy_drop", "1%", 0.01),
        ("max_accuracy_drop", "1e-2", 0.01),
        ("max_accuracy_drop", 0, 0),
    ],
)
def test_texts_have_units(name, text, expected):
    assert getattr(Budget(**{name: text}), name) == pytest.approx(expected)


@given(st.integers(1, 10**9))
def test_a_number_is_its_own_text(value):
    assert Budget(max_flash=f"{value} B").max_flash == value == Budget(max_flash=value).max_flash


@pytest.mark.parametrize(
    "limits, error, words",
    [
        ({}, ValueError, "Nothing is limited: pass at least one of max_accuracy_drop, max_flash"),
        ({"max_flash": "20 ms"}, ValueError, "max_flash must be a number of bytes, or a text such as .* got '20 ms'"),
        ({"max_latency_ms": "1%"}, ValueError, "pass 20 or '20 ms'"),
        ({"max_accuracy_drop": "a bit"}, ValueError, "pass 0.01 or '1%'"),
        ({"max_accuracy_drop": -0.1}, ValueError, "held by no model"),
        ({"max_ram": 0}, ValueError, "max_ram must be a whole number of 1 or more"),
        ({"max_size": math.nan}, ValueError, "finite"),
        ({"max_size": [1]}, TypeError, "must be a number"),
    ],
)
def test_what_is_no_limit_is_refused(limits, error, words):
    with pytest.raises(error, match=words):
        Budget(**limits)


@pytest.mark.parametrize(
    "limits, target, words",
    [
        ({"max_flash": "2 MiB"}, "cortex-m-256k-1m", "max_flash of 2048 KiB is more than the 1024 KiB of flash that"),
        ({"max_ram": "1 MiB"}, "cortex-m-256k-1m", "more than the 256 KiB of RAM"),
        ({"max_ram": "1 MB"}, "phone", "for 'phone' pass max_size"),
        ({"max_latency_ms": 3}, "cortex-m-256k-1m", "cannot be measured on this machine"),
    ],
)
def test_limits_that_a_target_cannot_have_are_refused(limits, target, words):
    from edgeprune import targets

    with pytest.raises(ValueError, match=words):
        Budget(**limits).check_target(targets.target(target))
    Budget(max_size="1 MB").check_target(targets.target(target))


def test_what_is_exceeded_is_named_the_worst_first():
    budget = Budget(max_flash="256 KiB", max_latency_ms=20, max_accuracy_drop="1%", max_size="1 MB")
    found = budget.exceeded({"flash": 300 * 1024, "latency_ms": 40.0, "accuracy_drop": 0.01, "size": 10})
    assert [one.limit for one in found] == ["max_latency_ms", "max_flash"]
    assert str(found[0]) == "max_latency_ms of 20 ms: 40 ms, 20 ms (100%) over"
    assert found[1].by == 44 * 1024
    assert budget.overshoot({"flash": 0, "latency_ms": 25.0, "accuracy_drop": -1, "size": 0}) == 0.25


@pytest.mark.parametrize("value", [None, math.nan, "missing"])
def test_what_was_not_measured_does_not_hold(value):
    measured = {} if value == "missing" else {"ram": value}
    (excess,) = Budget(max_ram="64 KiB").exceeded(measured)
    assert "max_ram of 64 KiB: not measured" in str(excess) and math.isnan(excess.by)


@given(st.dictionaries(st.sampled_from(["flash", "ram", "size", "latency_ms", "accuracy_drop"]), st.floats(0, 1e9)))
def test_a_limit_holds_or_is_exceeded(measured):
    budget = Budget(max_flash=10**6, max_ram=1000, max_size=5, max_latency_ms=7, max_accuracy_drop=0.5)
    broken = {one.limit for one in budget.exceeded(measured)}
    for name, allowed in budget.limits.items():
        value = measured.get(name.removeprefix("max_"))
        assert (name in broken) == (value is None or value > allowed)
    assert (budget.overshoot(measured) == 0) == (not broken)


def test_amounts_are_written_as_users_write_them():
    texts = [amount_text("size", value) for value in (12, 2048, 20 * 2**20)]
    assert texts == ["12 B", "2 KiB", "20 MiB"]
    assert amount_text("max_accuracy_drop", 0.01) == "0.01"
