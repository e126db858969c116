import pytest
from erg_loadtest.errors import PlanError
from erg_loadtest.indices import Parts, hints, indices, parse_weights
from erg_loadtest.quality import quality_of
from hypothesis import given
from hypothesis import strategies as st

BASE = Parts(name="fp32", power=10.0, memory=100.0, time=1000.0, performance=0.8, training_s=3600.0)


def test_the_baseline_s_own_indices_are_one():
    found = indices(BASE, BASE)
    assert (found.inference_cost, found.training_efficiency) == (1.0, 1.0)


def test_parts_are_taken_over_the_baseline_s_and_weighed_alike():
    int8 = Parts(name="int8", power=5.0, memory=25.0, time=500.0, performance=0.4, training_s=1800.0)
    found = indices(int8, BASE)
    assert found.inference_cost == pytest.approx((0.5 + 0.25 + 0.5) / 3 / 0.5)
    assert found.training_efficiency == pytest.approx(0.5 / 0.5)
    assert found.ratios == {"power": 0.5, "memory": 0.25, "time": 0.5}


def test_weights_count_and_need_not_add_up():
    cheap = Parts(name="x", power=5.0, memory=100.0, time=1000.0, performance=0.8)
    assert indices(cheap, BASE, parse_weights("power=3")).inference_cost == pytest.approx(0.5)
    assert indices(cheap, BASE, parse_weights("power=1,memory=3")).inference_cost == pytest.approx((0.5 + 3) / 4)


def test_a_missing_part_makes_no_index_and_says_whose_and_how_to_bring_it():
    found = indices(Parts(name="x", memory=1.0, time=1.0, performance=0.5), BASE)
    assert found.inference_cost == "missing: power"
    assert found.training_efficiency == "missing: training time"
    assert "--metrics-url" in hints(found)
    assert "training time by --training-time" in hints(found)
    assert "time by answers" not in hints(found)
    assert hints(indices(BASE, BASE)) == ""
    assert indices(BASE, Parts(name="x", power=1.0)).inference_cost == (
        "missing: the baseline's memory, the baseline's time, the baseline's performance"
    )
    # A part that weighs nothing is not missed.
    assert isinstance(
        indices(Parts(name="x", memory=1.0, performance=1.0), BASE, parse_weights("memory=1")).inference_cost, float
    )


def test_a_modelled_power_makes_a_modelled_index_unless_it_weighs_nothing():
    modelled = Parts(
        name="x", power=5.0, power_source="modelled", memory=1.0, time=1.0, performance=1.0
    )  # fmt: skip
    assert indices(modelled, BASE).source == "modelled"
    assert indices(BASE, modelled).source == "modelled"
    assert indices(modelled, BASE, parse_weights("time=1")).source == "measured"


@pytest.mark.parametrize("text", ["", "power", "power=x", "power=-1", "watts=1", "power=0", "power=nan", "power=inf"])
def test_weights_that_make_no_sense_are_refused_with_an_example(text):
    with pytest.raises(PlanError, match=r"power=1,memory=1,time=1|at least one"):
        parse_weights(text)


positive = st.floats(1e-6, 1e6)


@given(positive, positive, positive, positive, positive)
def test_units_do_not_matter(power, memory, time, performance, unit):
    parts = Parts(name="x", power=power, memory=memory, time=time, performance=performance)
    other = Parts(name="x", power=power * unit, memory=memory, time=time, performance=performance)
    base = Parts(name="b", power=10.0 * unit, memory=100.0, time=1000.0, performance=0.8)
    assert indices(other, base).inference_cost == pytest.approx(indices(parts, BASE).inference_cost)


def test_quality_comes_from_a_flag_or_the_manifest_of_that_model(tmp_path):
    path = tmp_path / "manifest.json"
    path.write_text('{"model": "m", "accuracy": [{"metric": "spearman", "value": 0.82}]}')
    assert quality_of("m", ["0.9", "m=0.7"], ["60"]).performance == 0.7
    assert quality_of("n", ["0.9", "m=0.7"]).performance == 0.9
    found = quality_of("m", manifests=[path], training_times=["60"])
    assert (found.performance, found.metric, found.training_s) == (0.82, "spearman", 60.0)
    assert quality_of("n", manifests=[path]).performance is None


@pytest.mark.parametrize("text", ["good", "m=good", "0", "-1", "nan", "inf"])
def test_a_quality_that_is_no_positive_number_is_refused(text):
    with pytest.raises(PlanError, match="--performance"):
        quality_of("m", [text])


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"model": "m", "accuracy": [1]}', '{"model": "m", "accuracy": 1}'])
def test_a_file_that_is_no_manifest_is_refused(tmp_path, text):
    path = tmp_path / "manifest.json"
    path.write_text(text)
    with pytest.raises(PlanError, match="not a model's manifest"):
        quality_of("m", manifests=[path])
