import pytest

from results.rounding import p_value, percent


@pytest.mark.parametrize(
    ("share", "sign", "text"),
    [
        (0.0225, "+", "+2.3"),
        (-0.0225, "+", "-2.3"),
        (0.4565, "", "45.7"),
        (-0.00001, "+", "+0.0"),
        (0.0, "", "0.0"),
        (1.0, "", "100.0"),
    ],
)
def test_halves_go_away_from_zero_and_zero_has_no_minus(share, sign, text):
    assert percent(share, sign) == text


def test_small_p_values_are_said_to_be_small():
    assert (p_value(0.00099), p_value(0.001), p_value(1.0)) == ("<0.001", "0.001", "1.000")
