import numpy as np
import pytest

from mmzoo.report.record import CodebookUsage, Curve, CurvePanel, Measure, number, short_number


@pytest.mark.parametrize(
    ("value", "decimals", "text"),
    [
        (0.0, None, "0"),
        (12, None, "12"),
        (np.int64(3214592), None, "3,214,592"),
        (181.37, None, "181"),
        (18.834, None, "18.8"),
        (9.996, None, "10.0"),
        (0.031249, None, "0.0312"),
        (-0.4, None, "−0.400"),
        (1.2e-8, None, "1.20e-8"),
        (-3e20, None, "−3.00e20"),
        (99.96, 0, "100"),
        (-0.04, 1, "0.0"),
        (-1234.5, 1, "−1,234.5"),
        (float("nan"), None, "nan"),
        (float("inf"), 2, "∞"),
        (float("-inf"), None, "−∞"),
    ],
)
def test_number(value, decimals, text):
    assert number(value, decimals) == text


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (0, 3, "0"),
        (200, 3, "200"),
        (1500, 3, "1.5k"),
        (-1500, 3, "−1.5k"),
        (20e6, 3, "20M"),
        (7e9, 3, "7B"),
        (2.5e12, 3, "2.5T"),
        (999.96, 4, "1k"),
        (0.25, 3, "0.25"),
        (0.0005, 3, "5e-4"),
        (1_000_200, 5, "1.0002M"),
        (1e300, 3, "1e300"),
        (5e-324, 3, "4.94e-324"),
        (float("nan"), 3, "nan"),
    ],
)
def test_short_number(value, digits, text):
    assert short_number(value, digits) == text


@pytest.mark.parametrize(
    ("measure", "value", "interval"),
    [
        (Measure("PSNR", 18.8342, "dB", 17.93, 19.61, 0.95), "18.8", "17.9 to 19.6"),
        (Measure("SSIM", 0.61234, "", 0.571, 0.6520, 0.95), "0.612", "0.571 to 0.652"),
        (Measure("gap", -0.4, "dB", -1.24, 0.31), "−0.4", "−1.2 to 0.3"),
        (Measure("speed", 1834.2, "images/s", 1790.0, 1876.0), "1,834", "1,790 to 1,876"),
        (Measure("rate", 1.25e-8, "", 1.1e-8, 1.4e-8), "1.25e-8", "1.10e-8 to 1.40e-8"),
        (Measure("constant", 0.5, "", 0.5, 0.5), "0.500", "0.500 to 0.500"),
        (Measure("open", 3.0, "", 1.0, float("inf")), "3.00", "1.00 to ∞"),
        (Measure("alone", 0.61234), "0.612", ""),
    ],
)
def test_an_interval_sets_the_digits_and_shares_the_decimals_of_its_value(measure, value, interval):
    assert (measure.value_text, measure.interval_text) == (value, interval)


def test_level_and_basis():
    measure = Measure("PSNR", 18.8, "dB", 17.9, 19.6, 0.999, 1200, "images, 9,600 crops")
    assert (measure.level_text, measure.basis) == ("99.9 %", "1,200 images, 9,600 crops")
    assert (Measure("x", 1.0, level=0.95).level_text, Measure("x", 1.0).basis) == ("", "")
    assert Measure("x", 1.0, n=3).basis == "3"


def test_what_was_not_measured_says_so_and_has_no_interval():
    measure = Measure("LPIPS", None, "", 0.1, 0.2, 0.95)
    assert (measure.value_text, measure.interval_text, measure.level_text) == ("not measured", "", "")


@pytest.mark.parametrize(
    "interval", [{"low": 1.0}, {"high": 1.0}, {"low": 2.0, "high": 1.0}, {"level": 95.0}, {"level": 0.0}]
)
def test_an_impossible_interval_is_refused(interval):
    with pytest.raises(ValueError, match="'PSNR'"):
        Measure("PSNR", 1.5, **interval)


def test_curves_of_unequal_length_or_falling_steps_are_refused():
    with pytest.raises(ValueError, match="2 steps but 1 values"):
        Curve("loss", (1, 2), (0.5,))
    with pytest.raises(ValueError, match="fall"):
        Curve("loss", (2, 1), (0.5, 0.4))
    assert Curve("loss", (2, 2), (0.5, 0.4)).steps == (2, 2)


def test_a_panel_has_as_many_curves_as_there_are_colours():
    curves = [Curve(str(index), (), ()) for index in range(6)]
    assert len(CurvePanel("five", curves[:5]).curves) == 5
    with pytest.raises(ValueError, match="6 curves"):
        CurvePanel("six", curves)


@pytest.mark.parametrize(
    ("size", "used", "perplexity"),
    [(0, [], []), (16, [1.1], [3.0]), (16, [float("nan")], [3.0]), (16, [0.5], [17.0]), (16, [0.5], [float("nan")])],
)
def test_impossible_codebook_usage_is_refused(size, used, perplexity):
    with pytest.raises(ValueError, match="'levels'"):
        CodebookUsage("levels", size, used, perplexity, 100)


def test_the_rounding_of_float32_is_no_error():
    assert CodebookUsage("levels", 512, [1.0], [float(np.exp(np.log(np.float32(512))))], 9).size == 512
