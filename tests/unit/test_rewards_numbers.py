r"""Plain numbers are read exactly, with their percent signs, units and roundings (docs/verifier.md, Numbers and Conventions)."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.verifier.compare import compare_quickly
from rewards.verifier.numbers import as_number, close, numbers_rule
from rewards.verifier.units import known_unit, read_unit


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1,000", 1000), ("27.0", 27), ("070", 70), ("$18", 18), ("145.0", 145), (r"\$18", 18), ("-5", -5), ("+5", 5), ("−5", -5), ("-$5", -5), ("$-5$", -5), ("5.", 5),
        (".5", Fraction(1, 2)), (r"1{,}000", 1000), (r"11,\! 111,\! 111", 11111111), (r"1\,000", 1000), ("12,345,678.90", Fraction("12345678.9")), (r"\text{13}", 13), (r"5\text{ cm}", 5),
        (r"5 \, \text{cm}", 5), ("€7", 7), ("7€", 7), (r"50\%", 50), ("0", 0), ("000", 0), (r"\boxed{4}", 4), ("1 000", 1000), ("3/4", Fraction(3, 4)), (r"\frac34", Fraction(3, 4)),
        (r"-\dfrac{3}{4}", Fraction(-3, 4)), ("1 1/2", Fraction(3, 2)), (r"1\frac12", Fraction(3, 2)), (r"-1\frac{1}{4}", Fraction(-5, 4)), ("1e5", 100000), (r"2.5 \times 10^{-3}", Fraction(1, 400)),
        (r"0.1\overline{6}", Fraction(1, 6)), (r"0.\dot{3}", Fraction(1, 3)), ("2.5 million", 2500000), ("3 dozen", 36), ("twelve", 12), ("The answer is 42", 42), ("about 5", 5), ("**73**", 73),
        ("{5}", 5), (r"90^\circ", 90), ("45°", 45), ("10weeks", 10), ("10 cm^2", 10), ("28 percent", 28),
    ],
)  # fmt: skip
def test_plain_numbers_are_read_exactly(text, value):
    assert as_number(text).value == value


@pytest.mark.parametrize(
    "text",
    [
        "", "x", "1,00", "1,2", "2 3", r"2\text{ or }3", "1.2.3", "--5", "-", ".", "%", "٣", "1, 000", "9" * 5000, "5 or 7", "not 5", "5!", "5^2", "10m", "5x", "3 thousandths", "5 squared",
        "1/0", r"\frac{1}{0}", r"2\frac{5}{3}", "1e999999", r"5 factorial", "5 plus 3", "at least 5", r"\pm5", "5:7", "0,5", "a5", "5 AB", "5 less than x", "5 and 7 apples", "5 thirds",
        *(rf"5 \text{{ {words}}}" for words in ("dozens", "hundreds", "thousands", "millions", "tens", "score", "lakh", "doubled", "tripled", "reciprocal", "inverse", "permille", "per mille", "basis points")),
        *(rf"5 \text{{ {words}}}" for words in ("is wrong", "is not the answer", "isn't it", "can be ruled out", "below", "under par", "in base six", "wrong", "or 6")),
        "2 m g", "2 m s", r"2\frac{m}{s}", r"5\mu m", r"5\Omega", "5 K", "5 x/y", "5 s^{-1}",
    ],
)  # fmt: skip
def test_what_is_not_plainly_a_number_is_left_to_the_other_rules(text):
    assert as_number(text) is None


@pytest.mark.parametrize(
    ("gold", "answer", "equal"),
    [
        ("0.5", "0,5", True), ("0,5", "0.5", None), ("1,22", "1.22", True), ("47.25", "47,25", True), ("47.25", r"47{,}25 \text{ m}", True), ("-2.5", "-2,5", True), ("0.125", "0,125", True), ("$8.90", "8,90", True),
        ("47.25", "47, 25", None), ("47.25", "47,52", None), ("2.5", "-2,5", None), ("3.5", "3,50", True), ("5.5", "5,50 €", True), ("2.125", "2,125", False), ("1/2", "0,5", None), ("5", "0,5", None), ("1.5", "(1,5)", None),
        ("1.23", "1,2,3", None), ("1.5", "x,1,5", None), ("1,5", "1,5", None),
    ],
)  # fmt: skip
def test_a_decimal_comma_is_read_where_the_other_side_has_the_point(gold, answer, equal):
    assert numbers_rule(gold, answer) is equal


@pytest.mark.parametrize(
    ("gold", "answer", "equal"),
    [
        (r"10\%", "0.1", True), (r"10\%", "10", True), (r"10\%", "1", False), ("0.1", r"10\%", True), (r"10\%", r"0.1\%", False), ("50", "0.5", False),
        (r"5\text{ cm}", "50 mm", True), (r"5\text{ cm}", "5 mm", False), (r"5\text{ cm}", "5", True), (r"5\text{ cm}", "5 kg", False), ("60 km/h", "60", True), ("60 km/h", "60 mph", False),
        (r"12\text{ cm}^2", "12 square centimeters", True), (r"12\text{ cm}^2", "12 cm", False), ("1 hour", "60 minutes", True), ("1 hour", "60", False), ("$0.50", "50 cents", True), ("$5", "€5", False),
        ("$20", "20%", False), ("20 cm", "20%", False), (r"45^\circ", r"45\%", False), ("20%", "$20", False), ("20%", "20 degrees", False), ("20%", "20", True),
        ("66.67%", "2/3", True), (r"33.3\%", "1/3", True), ("66.67%", "0.66", False), ("66.67%", "0.6668", False), ("66.68%", "2/3", False), ("16", "sixteen", True), ("45", "forty-five", True),
        ("45", "fifty-four", False), ("100", "one hundred", True), ("15 mph", "15 mi/h", True), ("15 mph", "15 km/h", False), ("36 km/h", "10 m/s", True), (r"50\text{ km/h}", r"50 \frac{\text{km}}{\text{h}}", True),
        (r"5\text{ kg m/s}", r"5 \text{ kg m}", False), (r"5\text{ kJ/mol}", r"5000 \text{ J/mol}", True), (r"5\text{ kJ/mol}", r"5 \text{ J/mol}", False), (r"2\text{ cm}^{-1}", r"2\text{ cm}", False),
        ("20", "20 cups of feed", True), ("20", "21 cups of feed", False), ("20 cups", "20 bolts", True), ("2 years", "24 months", True), ("1 mile", "1609.344 m", True),
    ],
)  # fmt: skip
def test_percent_signs_and_units_are_compared_by_their_conventions(gold, answer, equal):
    assert numbers_rule(gold, answer) is equal


@pytest.mark.parametrize(
    ("gold", "answer", "equal"),
    [
        ("6.67", "20/3", True), ("6.67", "6.667", True), ("6.67", "6.66", False), ("6.67", "6.68", False), ("6.67", "6.6", False), ("6.67", "7", False),
        ("6.7", "20/3", True), ("6.7", "6.61", False), ("0.7", "2/3", False), ("7", "20/3", False), ("0.66", "2/3", False), ("0.667", "2/3", True), ("33.3", "100/3", True), ("33.3", "33.36", False), ("12.5", "25/2", True),
        ("20/3", "6.67", False), ("20/3", "6.666667", True), ("1/3", "0.33333", False), ("100000/3", "33333.333333", True), ("125.663", "125.66371", True), ("12.5", "12.57", False), ("142.0", "142.04", False), ("142.0", "142", True), ("142.00", "142.004", True),
    ],
)  # fmt: skip
def test_a_gold_of_two_digits_with_a_point_is_met_by_what_rounds_to_it(gold, answer, equal):
    assert numbers_rule(gold, answer) is equal


def test_tiny_numbers_are_not_all_equal():
    assert not close(Fraction(1, 10**9), Fraction(2, 10**9), Fraction(1, 10**9))
    assert not close(Fraction(1, 10**9), Fraction(0), Fraction(1, 10**9))
    assert close(Fraction(1, 3), Fraction(333333, 10**6), Fraction(1, 10**6))
    assert not close(Fraction(1), Fraction(9999999, 10**7), Fraction(1, 10**7))


@given(st.integers(-(10**25), 10**25), st.integers(1, 10**6))
def test_a_number_and_its_neighbour_are_different_however_they_are_written(n, step):
    for gold in (str(n), f"{n:,}", f"${n}$", f"{n}.0"):
        for answer in (str(n + step), f"{n + step:,}", rf"\text{{{n + step}}}", f"{n + step} apples"):
            assert compare_quickly(gold=gold, answer=answer)[0] is False


@given(st.fractions(min_value=-1000, max_value=1000, max_denominator=500))
def test_a_fraction_equals_itself_in_every_spelling_and_not_its_negative(value):
    a, b = abs(value.numerator), value.denominator
    sign = "-" if value < 0 else ""
    for answer in (f"{sign}{a}/{b}", rf"{sign}\frac{{{a}}}{{{b}}}", rf"{sign}\dfrac{{{2 * a}}}{{{2 * b}}}"):
        assert numbers_rule(str(value), answer) is True
        assert numbers_rule(answer, str(value)) is True
        assert numbers_rule(str(-value - 1), answer) is (-value - 1 == value)


@given(st.decimals(min_value="0.001", max_value="9999", places=4), st.sampled_from(["cm", "kg", "hours", "dollars"]))
def test_comparing_numbers_with_the_same_unit_is_symmetric(value, unit):
    other = value + 1
    for one, two in ((value, value), (value, other)):
        assert numbers_rule(f"{one} {unit}", f"{two} {unit}") is numbers_rule(f"{two} {unit}", f"{one} {unit}") is (one == two)


@pytest.mark.parametrize(
    "unit",
    [
        r"\text{ erg/s}", r"\mathrm{~erg} / \mathrm{s}", r"\text{ erg s}^{-1}", r"\text{ K}", r"\ \text{g/mol}", r"\text{ mol/L}", r"\text{ kJ/mol}", r"\text{ kg m/s}", r"\ \mu m", r" \Omega", " eV",
        r"\text{ cm}^{-1}", r" \frac{\text{km}}{\text{h}}", r"\text{ W/m}^2", " m/s", " nm",
    ],
)  # fmt: skip
def test_products_and_quotients_of_units_on_one_side_only_are_dropped(unit):
    assert numbers_rule("0.7", f"0.7{unit}") is numbers_rule(f"0.7{unit}", "0.7") is True
    assert numbers_rule("0.7", f"0.8{unit}") is False


def test_units_have_dimensions_and_factors():
    assert known_unit(r"\text{ cm}^2") == ("length^2", Fraction(1, 10000))
    assert known_unit("miles per hour") == ("length/time", Fraction(1609344, 3600 * 1000))
    assert known_unit("widgets") is None and known_unit("pm") is None and known_unit("dB") == ("decibel", 1)
    assert known_unit("kilometres") == known_unit("km") == ("length", 1000) and known_unit("inches") == known_unit("in")
    assert known_unit("MPa") == ("mass/length time^2", 10**9) and known_unit(r"\mu F") == known_unit("μF") == known_unit("microfarads")
    assert known_unit("J/(mol K)") == known_unit(r"\text{J}\cdot\text{mol}^{-1}\cdot\text{K}^{-1}") and known_unit(
        "k \\Omega"
    ) == known_unit("kiloohm")
    assert known_unit("L/m") == ("length^2", Fraction(1, 1000)) and known_unit("J/N") == ("length", 1)
    assert known_unit("sq. ft") == known_unit("square feet") and known_unit("KM") is None
    assert as_number("3 cm 4 cm") is None and as_number(r"0.\bar{3}").value == Fraction(1, 3)
    assert known_unit("meters per second squared") == ("length/time^2", 1) and known_unit("yards cubed") == known_unit("cubic yards")
    assert read_unit("bags of feed", glued=False) == ("", 1)
    assert read_unit("m", glued=True) is None and read_unit("m", glued=False) == ("length", 1)
    assert read_unit("or more", glued=False) is None
