import copy
import io

import numpy as np
import pytest
import torch
from scipy import signal, stats
from torch import nn

from pyg_stmamba.nn.embedding import SpectralTimeEmbedding
from tests.laws import close, copies_are_equal, inputs_stay_untouched, same

TONES = (12.3, 47.7, 130.1)
BIN = 1000 / 1024


def waves(
    freqs=TONES, amplitudes=(1.0, 0.8, 0.6), rows=6084, channels=8, noise=0.5, offset=3.0, seed=0
):
    """Tones with a phase of their own in each channel, sampled at 1000 Hz."""
    random = np.random.default_rng(seed)
    phases = random.uniform(0, 2 * np.pi, (len(freqs), channels))
    angle = 2 * np.pi * np.multiply.outer(np.arange(rows) / 1000, freqs)
    y = np.einsum("k,tkn->tn", amplitudes, np.sin(angle[:, :, None] + phases))
    return torch.from_numpy(y + offset + noise * random.normal(size=y.shape))


def fitted(y=None, num_modes=3, observed_mask=None, **options):
    options = {"dt": 1e-3, "nperseg": 1024, **options}
    y = waves() if y is None else y
    return SpectralTimeEmbedding(num_modes, **options).fit(y, observed_mask)


def bins_off(embedding, freqs=TONES):
    return np.abs(embedding.freqs.numpy() - np.array(freqs)).max() / BIN


@pytest.mark.parametrize(("refine", "tolerance"), [("parabolic", 0.05), ("lsq", 2e-3)])
def test_three_tones(refine, tolerance):
    for seed in range(5):
        assert bins_off(fitted(waves(seed=seed), refine=refine)) < tolerance
    assert bins_off(fitted(waves(offset=1e4).float(), refine=refine)) < tolerance


@pytest.mark.parametrize(("refine", "tolerance"), [("parabolic", 0.05), ("lsq", 2e-3)])
@pytest.mark.parametrize("place", [60.0, 60.3, 60.5])
def test_two_tones_four_bins_apart(refine, tolerance, place):
    freqs = (place * BIN, (place + 4) * BIN)
    for seed in range(3):
        y = waves(freqs, (1.0, 0.8), seed=seed)
        assert bins_off(fitted(y, 2, refine=refine), freqs) < tolerance


def test_without_refinement_frequencies_are_bins():
    embedding = fitted(refine=None)
    close(embedding.freqs / BIN, torch.tensor([13.0, 49.0, 133.0], dtype=torch.float64), 1e-12)


def test_the_phase_at_the_end_of_the_record():
    """Bins lose up to fifteen radians, least squares a hundredth of one."""
    for refine, least, most in ((None, 10, 20), ("parabolic", 0, 1), ("lsq", 0, 0.05)):
        lost = 2 * np.pi * 6.084 * BIN * bins_off(fitted(refine=refine))
        assert least <= lost < most


def test_opposite_sensors_do_not_cancel():
    wave = waves((47.7,), (1.0,), channels=1, noise=0.0, offset=0.0)
    noise = 0.3 * waves((1.0,), (0.0,), channels=1, noise=1.0, seed=1)
    y = torch.cat([wave + noise, -wave + noise], dim=1)
    assert bins_off(fitted(y, 1), (47.7,)) < 0.05
    assert bins_off(fitted(y, 1, refine="lsq"), (47.7,)) < 2e-3


def test_no_channel_shouts_down_the_others():
    loud = 1000 * waves((30.0,), (1.0,), channels=1)
    others = waves((80.0,), (1.0,), channels=3)
    assert bins_off(fitted(torch.cat([loud, others], 1), 1), (80.0,)) < 0.05


def test_modes_are_ascending_with_their_power():
    embedding = fitted(waves(amplitudes=(0.6, 0.8, 1.0)))
    assert (embedding.freqs.diff() > 0).all()
    assert (embedding.power.diff() > 0).all()
    assert embedding.n_modes == 3


def test_power_by_definition():
    """A lone wave of variance 1 in a bin of a Hann window: 1 / (1.5 bins of noise)."""
    y = waves((100 * BIN,), (1.0,), noise=0.0)
    assert fitted(y, 1).power.item() == pytest.approx(1 / (1.5 * BIN), rel=1e-3)


@pytest.mark.parametrize("window", ["hann", "boxcar"])
@pytest.mark.parametrize("detrend", ["constant", "linear"])
def test_power_is_the_mean_over_the_channels(window, detrend):
    y = torch.cat([waves(channels=2), waves(channels=5, amplitudes=(0, 0, 0), seed=1)], 1)
    y = y + 1e-3 * torch.arange(len(y)).unsqueeze(1)
    embedding = fitted(y, 1, window=window, detrend=detrend, refine=None)
    bins, density = signal.welch(
        stats.zscore(y.numpy()), 1000, window, 1024, detrend=detrend, axis=0
    )
    best = 2 + density.mean(1)[2:].argmax()
    np.testing.assert_allclose(embedding.freqs, bins[[best]], rtol=1e-12)
    np.testing.assert_allclose(embedding.power, density.mean(1)[[best]], rtol=1e-10)


@pytest.mark.parametrize("refine", ["parabolic", "lsq"])
def test_a_refined_frequency_stays_in_its_bin(refine):
    noise = torch.randn(512, 3)
    options = {"num_modes": 8, "dt": 1.0, "nperseg": 64}
    coarse, fine = (fitted(noise, refine=how, **options).freqs for how in (None, refine))
    assert ((fine - coarse).abs() <= 0.5 / 64 + 1e-9).all()
    assert ((fine - coarse).abs() > 0.1 / 64).any()


def test_fft_is_one_segment():
    y = waves(rows=1024)
    whole, one = fitted(y, method="fft", nperseg=None), fitted(y, nperseg=1024)
    same(whole.freqs, one.freqs)
    same(whole.power, one.power)
    assert bins_off(whole) < 0.05


def test_default_segments():
    same(fitted(nperseg=None).freqs, fitted(nperseg=1024).freqs)


def test_time_unit_and_units_of_the_channels():
    y = waves()
    expected = fitted(y).freqs
    close(fitted(y, dt=0.5).freqs * 500, expected, 1e-9)
    close(fitted(1e3 * y - 7).freqs, expected, 1e-9)


def test_batch_is_more_channels():
    y = waves()
    batch = torch.stack([y[:3000], y[3000:6000]])
    embedding, expected = fitted(batch), fitted(torch.cat([y[:3000], y[3000:6000]], 1))
    same(embedding.freqs, expected.freqs)
    same(embedding.power, expected.power)


def test_rows_outside_the_training_rows_do_not_matter():
    y = waves(rows=5000)
    expected = fitted(y[:4000].clone(), refine="lsq")
    y[4000:] = float("nan")
    embedding = fitted(y[:4000], refine="lsq")
    same(embedding.freqs, expected.freqs)
    same(embedding.power, expected.power)
    close(embedding(torch.arange(9)), expected(torch.arange(9)), 0)


@pytest.mark.parametrize("refine", ["parabolic", "lsq"])
def test_fit_is_deterministic(refine):
    y = waves(rows=3000)
    same(fitted(y, refine=refine).freqs, fitted(y.clone(), refine=refine).freqs)


def test_missing_entries_do_not_matter():
    y = waves(rows=3000)
    missing = torch.rand(y.shape) < 0.1
    missing[:5, 0] = missing[-5:, 1] = True
    embedding = fitted(y.masked_fill(missing, float("nan")))
    assert bins_off(embedding) < 0.05
    for junk in (1e9, float("nan"), float("inf")):
        same(fitted(y.masked_fill(missing, junk), observed_mask=~missing).freqs, embedding.freqs)


def test_channels_without_information_do_not_count():
    y = waves(rows=3000)
    expected = fitted(y)
    constant = torch.full_like(y[:, :2], 0.1)
    sparse = 100 * waves((200.0,), (1.0,), rows=3000, channels=1)
    sparse[:1510] = float("nan")
    embedding = fitted(torch.cat([constant, y, sparse], 1))
    same(embedding.freqs, expected.freqs)
    same(embedding.power, expected.power)


def test_fewer_peaks_than_modes():
    embedding = fitted(waves((47.7,), (1.0,), noise=0.0), num_modes=3)
    assert embedding.n_modes == 1
    assert embedding.freqs[0].item() == pytest.approx(47.7, abs=0.05 * BIN)
    features = embedding(torch.arange(7.0))
    assert (features[:, 2:] == 0).all()
    assert (features[:, :2] != 0).any()


def test_another_fit_forgets_the_first():
    embedding = fitted(num_modes=3)
    y = waves((47.7,), (1.0,), noise=0.0)
    same(embedding.fit(y).freqs, fitted(y, num_modes=3).freqs)
    assert embedding.n_modes == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_features_against_numpy(dtype):
    embedding = fitted()
    t = torch.cat([torch.arange(100), 1_000_000 - torch.arange(100)]).to(dtype)
    angle = 2 * np.pi * np.multiply.outer(t.double().numpy(), embedding.freqs.numpy())
    expected = torch.from_numpy(np.stack([np.sin(angle), np.cos(angle)], -1).reshape(200, 6))
    features = embedding(t)
    assert features.dtype == dtype
    close(features.double(), expected, 1e-6)
    close(embedding(-t).double()[:, ::2], -expected[:, ::2], 1e-6)


def test_shapes_of_time():
    embedding = fitted()
    t = torch.rand(2, 5)
    assert embedding(t).shape == (2, 5, 6)
    same(embedding(t.unsqueeze(-1)), embedding(t))
    same(embedding(t[0]), embedding(t)[0])
    assert embedding(t[:, :1, None]).shape == (2, 1, 6)
    assert embedding(torch.arange(4)).dtype == torch.float32


CASTS = {
    "float": lambda model: model.float(),
    "half": lambda model: model.half(),
    "bfloat16": lambda model: model.to(torch.bfloat16),
    "double and back": lambda model: model.double().float(),
    "twice": lambda model: model.half().to("cpu").float(),
    "type": lambda model: model.type(torch.float16),
    "copy": lambda model: copy.deepcopy(model).half(),
}


@pytest.mark.parametrize("cast", CASTS)
def test_precision_survives_that_of_the_model(cast):
    model = nn.Sequential(fitted(), nn.Linear(6, 2))
    t = 1_000_000 - torch.arange(50.0)
    freqs, power, features = model[0].freqs.clone(), model[0].power.clone(), model[0](t)
    model = CASTS[cast](model)
    for name, expected in (("freqs", freqs), ("power", power)):
        assert getattr(model[0], name).dtype == torch.float64
        same(getattr(model[0], name), expected)
        same(model.state_dict()[f"0.{name}"], expected)
    same(model[0](t), features)


def test_an_unfitted_module_takes_the_state():
    embedding, other = fitted(), SpectralTimeEmbedding(3, dt=1e-3).half()
    file = io.BytesIO()
    torch.save(embedding.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True), strict=True)
    t = torch.arange(20) / 7
    same(other(t), embedding(t))
    assert set(embedding.state_dict()) == {"freqs", "power", "n_modes"}


def test_from_the_meta_device():
    with torch.device("meta"):
        embedding = SpectralTimeEmbedding(3)
    embedding.float().to_empty(device="cpu").load_state_dict(fitted().state_dict())
    same(embedding.freqs, fitted().freqs)


def test_laws():
    t = torch.rand(3, 5)
    copies_are_equal(fitted(), lambda embedding: embedding(t))
    inputs_stay_untouched(fitted(), t)
    y = waves(rows=3000)
    y[5:9, 0] = float("nan")
    inputs_stay_untouched(lambda *inputs: fitted(inputs[0], 3, inputs[1])(t), y, ~y.isnan())
    wide = y.t().contiguous().t()
    same(fitted(wide).freqs, fitted(y).freqs)
    assert list(fitted().parameters()) == []


def test_use_before_fit():
    with pytest.raises(ValueError, match="knows no frequencies yet; call fit on the training rows"):
        SpectralTimeEmbedding(3)(torch.arange(5))


def test_bad_data():
    embedding = SpectralTimeEmbedding(1)
    y = torch.randn(40, 2)
    with pytest.raises(ValueError, match="at least 8 rows, got 7"):
        embedding.fit(y[:7])
    with pytest.raises(ValueError, match=r"nperseg \(64\) must not exceed the 40 samples"):
        SpectralTimeEmbedding(1, nperseg=64).fit(y)
    with pytest.raises(ValueError, match="40 rows in segments of 16 has no peak"):
        embedding.fit(torch.arange(40.0).unsqueeze(1))
    assert embedding.n_modes == 0


def test_bad_options():
    for options, message in (
        ({"num_modes": 0}, "num_modes must be at least 1, got 0"),
        ({"min_separation": 0}, "min_separation must be at least 1, got 0"),
        ({"dt": 0.0}, "dt must be positive"),
        ({"method": "lomb"}, "unknown method 'lomb'; choose 'welch' or 'fft'"),
        ({"method": "fft", "nperseg": 64}, "method='fft' has one segment"),
        ({"window": "flat"}, "unknown window 'flat'"),
        ({"detrend": "mean"}, "unknown detrend 'mean'"),
        ({"refine": "newton"}, "unknown refine 'newton'; choose 'parabolic', 'lsq' or None"),
    ):
        with pytest.raises(ValueError, match=message):
            SpectralTimeEmbedding(**options)


def test_repr():
    expected = "SpectralTimeEmbedding(2, dt=0.5, method='fft', refine='lsq')"
    assert str(SpectralTimeEmbedding(2, 0.5, "fft", refine="lsq")) == expected
