"""Signal equations against numbers worked out by hand, and settings that no scanner has."""

from dataclasses import replace

import numpy as np
import pytest

from pimms_tf.errors import InputError
from pimms_tf.simulation import CONTRASTS, Hospital, Protocol, draw_hospital, draw_protocol
from pimms_tf.simulation.protocols import (
    double_inversion_recovery,
    gradient_echo,
    inversion_recovery,
    mprage,
    nulling_ti_ms,
    signal,
    spin_echo,
)
from pimms_tf.simulation.tissues import FLUID, GREY, TISSUES, WHITE, draw_tissues, tissue_map

T1_SCAN = Protocol("T1", "spin echo", 1.5, 500.0, 10.0)


def test_spin_echo_equals_the_formula_by_hand():
    # 0.65 (1 - e^(-832/832)) e^(-79.2/79.2) = 0.65 * 0.6321206 * 0.3678794
    assert spin_echo(832.0, 79.2, 0.65, 832.0, 79.2) == pytest.approx(0.1511537, rel=1e-6)
    assert spin_echo(4163.0, 503.0, 0.97, 1e9, 0.0) == pytest.approx(0.97)
    assert spin_echo(4163.0, 503.0, 0.97, 0.0, 10.0) == 0.0


def test_inversion_recovery_equals_the_formula_by_hand():
    # TI = T1 ln 2 and infinite TR: 1 - 2/2 + 0 = 0; TI = 2 T1: 1 - 2 e^-2 = 0.7293294; TI = 0: full inversion.
    assert inversion_recovery(1331.0, 99.0, 0.78, 1e9, 0.0, 1331 * np.log(2)) == pytest.approx(0, abs=1e-12)
    assert inversion_recovery(1331.0, 99.0, 0.78, 1e9, 0.0, 2 * 1331.0) == pytest.approx(0.78 * 0.7293294, rel=1e-6)
    assert inversion_recovery(1331.0, 99.0, 0.78, 1e9, 99.0, 0.0) == pytest.approx(-0.78 * 0.3678794, rel=1e-6)


def test_a_gradient_echo_of_90_degrees_is_saturation_recovery():
    assert gradient_echo(1000.0, 50.0, 0.8, 700.0, 0.0, 90.0) == pytest.approx(0.8 * (1 - np.exp(-0.7)))
    # At the Ernst angle, cos a = E1, no neighbouring angle gives more.
    ernst = float(np.rad2deg(np.arccos(np.exp(-20 / 1000))))
    best, less, more = (gradient_echo(1000.0, 50.0, 1.0, 20.0, 0.0, angle) for angle in (ernst, ernst - 1, ernst + 1))
    assert best > max(less, more)


def test_a_second_inversion_right_after_the_first_undoes_it():
    once = spin_echo(1000.0, 80.0, 0.8, 5000.0, 20.0)
    twice = double_inversion_recovery(1000.0, 80.0, 0.8, 5000.0, 20.0, 3000.0, 3000.0)
    assert twice == pytest.approx(once)


def test_mprage_of_vanishing_excitations_is_an_inversion_recovery():
    # Small angles leave the recovery alone; what is read is its value at TI times the sine of the angle.
    found = mprage(900.0, 50.0, 0.7, 2000.0, 0.0, 900.0, 0.01) / np.sin(np.deg2rad(0.01))
    # In the steady state of complete inversions, m = 1 - (1 + m) e^(-TR/T1).
    m = (1 - np.exp(-2000 / 900)) / (1 + np.exp(-2000 / 900))
    assert found == pytest.approx(0.7 * (1 - (1 + m) * np.exp(-1)), rel=1e-3)


@pytest.mark.parametrize("tr_ms", [6000.0, 9000.0, 11000.0])
def test_the_nulling_inversion_time_leaves_no_signal(tr_ms):
    ti_ms = nulling_ti_ms(4163.0, tr_ms)
    assert 0 < ti_ms < tr_ms
    assert inversion_recovery(4163.0, 503.0, 0.97, tr_ms, 0.0, ti_ms) == pytest.approx(0, abs=1e-12)


def test_drawn_protocols_order_the_tissues_as_radiologists_expect():
    rng = np.random.default_rng(0)
    for _ in range(150):
        field_t = float(rng.choice((1.5, 3.0)))
        table = draw_tissues(rng, field_t)[:, :4]
        for contrast in ("T1", "T2", "FLAIR"):
            protocol = draw_protocol(contrast, field_t, rng)
            white, grey, fluid = (float(signal(*table[tissue], protocol)) for tissue in (WHITE, GREY, FLUID))
            if contrast == "T1":
                assert white > grey > abs(fluid)
            elif contrast == "T2":
                assert fluid > 1.3 * grey > 1.3 * white
            else:
                assert min(white, grey) > 1.5 * abs(fluid)


def test_an_equal_generator_draws_an_equal_hospital_and_all_drawn_ones_are_possible():
    for seed in range(60):
        one = draw_hospital(np.random.default_rng(seed), "h")
        assert one == draw_hospital(np.random.default_rng(seed), "h")
        one.check("drawn")
    for contrast in CONTRASTS:
        Hospital("x", (draw_protocol(contrast, 3.0, np.random.default_rng(1)),)).check("drawn")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"contrast": "T3"}, "contrast = 'T3' is none of T1, T1ce"),
        ({"sequence": "echo"}, "sequence = 'echo' is none of spin echo"),
        ({"te_ms": -1.0}, "te_ms = -1.0 is not between 0 and 1000"),
        ({"snr": "good"}, "snr = 'good' is not between"),
        ({"sequence": "inversion recovery"}, "ti_ms = 0 is not between 0 and tr_ms"),
    ],
)
def test_settings_that_no_scanner_has_are_refused_in_one_sentence(changes, words):
    with pytest.raises(InputError, match=f"here, protocol 1: {words}"):
        Hospital("x", (replace(T1_SCAN, **changes),)).check("here")


# Tissues


def test_every_code_belongs_to_one_tissue_only():
    codes = [code for tissue in TISSUES for code in tissue.codes]
    assert len(codes) == len(set(codes))


def test_codes_become_tissues_and_parcels_count_as_what_they_are_of():
    codes = np.array([[[0, 2, 41, 3, 1022, 12144, 3005, 24]]])
    assert tissue_map(codes).tolist() == [[[0, WHITE, WHITE, GREY, GREY, GREY, WHITE, FLUID]]]


def test_codes_of_no_tissue_are_named():
    with pytest.raises(InputError, match="codes 99, 700 are no tissue"):
        tissue_map(np.array([[[0, 2, 99, 700]]]))
    with pytest.raises(InputError, match="give a label map, not a scan"):
        tissue_map(np.array([[[-5, 2]]]))


def test_people_differ_by_some_per_cent_and_fields_by_more():
    rng = np.random.default_rng(0)
    drawn = np.stack([draw_tissues(rng, 3.0) for _ in range(300)])
    for column, spread in ((0, 0.04), (1, 0.05), (3, 0.02)):
        relative = drawn[:, 1:, column].std(0) / drawn[:, 1:, column].mean(0)
        np.testing.assert_allclose(relative, spread, rtol=0.2)
    assert np.median(drawn[:, WHITE, 0]) == pytest.approx(TISSUES[WHITE].t1_ms[1], rel=0.02)
    assert draw_tissues(np.random.default_rng(0), 1.5)[WHITE, 0] < draw_tissues(np.random.default_rng(0), 3.0)[WHITE, 0]
