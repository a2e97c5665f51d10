"""A run's configuration: every preset's file is valid, any value can be overridden, nothing wrong is accepted."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch

from astra_ros.denoiser.presets import PRESETS
from astra_ros.flow.objective import SigmaSamplerConfig
from astra_ros.history.noise import HISTORY_NOISE
from astra_ros.training.budget import Budget
from astra_ros.training.config import DataSource, TrainConfig, load_config
from astra_ros.training.draw import Draw

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "config" / "train"
TINY = FOLDER / "tiny.yaml"


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_has_a_file_of_its_name(preset: str) -> None:
    config = load_config(FOLDER / f"{preset}.yaml")
    assert config.model() == PRESETS[preset]()
    assert TrainConfig.from_json(config.to_json()) == config


@pytest.mark.parametrize("preset", PRESETS)
def test_a_model_is_trained_on_the_noise_levels_that_it_serves(preset: str) -> None:
    sigmas, model = load_config(FOLDER / f"{preset}.yaml").objective.sigmas, PRESETS[preset]()
    assert (sigmas.shift, sigmas.served) == (model.shift, model.sigmas[:-1])
    assert len(sigmas.served) == model.num_steps


def test_noise_levels_that_are_given_stay_as_given() -> None:
    given = load_config(FOLDER / "base.yaml", ["objective.sigmas.served=[1.0]"]).objective.sigmas
    assert (given.shift, given.served) == (3.0, (1.0,))
    shifted = load_config(FOLDER / "astra_1b3.yaml", ["objective.sigmas.shift=4"]).objective.sigmas
    assert (shifted.shift, len(shifted.served)) == (4.0, 50)


@pytest.mark.parametrize("preset", ["tiny", "small"])
def test_presets_of_two_steps_keep_their_noise_levels(preset: str) -> None:
    assert load_config(FOLDER / f"{preset}.yaml").objective.sigmas == SigmaSamplerConfig(3.0, (1.0, 0.75))


def test_any_value_can_be_overridden_at_any_depth() -> None:
    words = [
        "denoiser.width=320",
        "denoiser.actions.router=hard",
        "training.batch=24",
        "codec.widths=[32, 64]",
    ]
    config = load_config(
        TINY, [*words, "training.learning_rate=2e-3", "objective.history_noise=astra_release"]
    )
    model, before = config.model(), PRESETS["tiny"]()
    assert (model.denoiser.width, model.denoiser.depth) == (320, before.denoiser.depth)
    assert model.denoiser.actions.router == "hard"
    assert model.denoiser.actions.num_experts == before.denoiser.actions.num_experts
    assert model.codec.widths == (32, 64)
    assert (config.training.batch, config.training.learning_rate) == (24, 0.002)
    assert config.objective.history_noise == HISTORY_NOISE["astra_release"]


def test_segments_are_as_long_as_the_networks_chunks() -> None:
    config = load_config(TINY, ["segments.imagined=0.5"])
    assert config.segment().chunk_len == config.model().denoiser.chunk_len
    assert config.segment().imagined == 0.5


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        (
            "schooling.batch=3",
            "tiny.yaml with schooling.batch=3: unknown key schooling; expected one of budget, ",
        ),
        ("traininng.batch=3", ": unknown key traininng; did you mean training?"),
        ("Training.batch=3", ": unknown key Training; did you mean training?"),
        ("denoiser.breadth=3", "denoiser: unknown key breadth; expected one of actions, "),
        ("denoiser.widtth=3", "denoiser: unknown key widtth; did you mean width?"),
        ("denoiser.actions.x=3", "denoiser.actions: unknown key x; expected one of "),
        ("denoiser.patch=0", "patch: expected 1 or more, found 0"),
        ("denoiser.num_heads=0", "num_heads: expected 1 or more, found 0"),
        ("objective.history_noise.light_range=[0.1]", "light_range: expected 2 values, found 1"),
        ("denoiser=3", "denoiser: expected an object, found '3'"),
        ("training.batch=2.5", "training.batch: expected an integer, found '2.5'"),
        ("training.batch=0", "training: batch: expected 1 or more, found 0"),
        ("training.micro_batches=3", "training: batch: expected a multiple of micro_batches = 3, found "),
        ("training.max_steps=many", "training.max_steps: expected an integer, found 'many'"),
        ("seed=true", "seed: expected an integer, found 'True'"),
        ("budget.minutes=0", "budget: minutes: expected more than 0, found 0.0"),
        ("budget.minutes=.nan", "budget.minutes: expected a number"),
        ("checkpoint_minutes=0", "checkpoint_minutes: expected more than 0, found 0.0"),
        ("segments.elsewhere=30", "segments: elsewhere: expected a share, 0 to 1, found 30.0"),
        ("segments.else=1", "segments: unknown key else; did you mean elsewhere?"),
        ("segments.chunk_len=4", "segments: chunk_len: expected 8, the network's, found 4; set denoiser."),
        ("objective.action_dropout=-0.1", "action_dropout: expected a share, 0 to 1, found -0.1"),
        ("objective.sigmas.served=[]", "sigmas: served: expected one noise level or more, found none"),
        ("objective.sigmas.served=[1.0, 0]", "served: expected noise levels beyond 0 and up to 1, found 0.0"),
        ("objective.sigmas.served_share=1.2", "sigmas: served_share: expected a share, 0 to 1, found 1.2"),
        ("objective.sigmas.shift=0", "sigmas: shift: expected more than 0, found 0.0"),
        ("objective.history_noise.heavy=0.8", "history_noise: light, heavy: expected shares that come to 1"),
        (
            "segments.just_started=0.7",
            "segments: just_started, short_history: expected shares that come to 1",
        ),
        ("training.warmup=1", "training: warmup: expected a share, 0 to less than 1, found 1.0"),
        (
            "codec_training.latent_noise=0.2",
            "codec_training.latent_noise: expected 0.08 as ever, for only the decoder gets used to noise, found 0.2;",
        ),
        (
            "decoder_training.motion=0.1",
            "decoder_training.motion: expected 0, for the encoder stays as it is",
        ),
        (
            "retrain_codec=true",
            "retrain_codec: expected the model whose codec is trained on as start_from beside it, found none",
        ),
        ("training.ema_decay=1.5", "training: ema_decay: expected 0 to 1, found 1.5"),
        ("data.sets=[]", "data: sets: expected at least one dataset, found none"),
        ("data.sets=[{path: a, weight: 0}]", "data.sets[0]: weight: expected more than 0, found 0.0"),
        ("data.sets=[{weight: 1}]", "data.sets[0]: expected ['path', 'weight']; missing ['path']"),
        ("preset=huge", "preset: expected one of tiny, small, base, astra_1b3, found 'huge'"),
        ("denoiser.adapter=both", "denoiser.adapter: expected one of act, cross_attention, found 'both'"),
        (
            "objective.history_noise=loud",
            "objective.history_noise: expected one of mixed, clean, astra_release",
        ),
        ("objective.history_noise.told=1", "objective.history_noise.told: expected true or false, found '1'"),
        (
            "codec_weights=somewhere",
            "codec_weights: expected the folder of TAEF2's weights with codec.kind taef2",
        ),
        ("seed={", "seed={: expected YAML, found while parsing a flow"),
    ],
)
def test_what_is_wrong_is_named_in_one_line(word: str, expected: str) -> None:
    with pytest.raises(ValueError) as info:  # noqa: PT011 (the text is checked below)
        load_config(TINY, [word])
    line = str(info.value)
    assert expected in line
    assert "\n" not in line
    assert str(TINY) in line or word in line


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            "start_from=a codec_training.motion=0.1",
            "codec_training.motion: expected no such word beside start_from=a, whose codec is taken as it is, found one;"
            " drop it, or set retrain_codec=true",
        ),
        (
            "codec_run=a budget={codec_minutes: 3}",
            "budget.codec_minutes: expected no such word beside codec_run=a",
        ),
        ("codec_run=a codec_training.emphasis=1", "codec_training.emphasis: expected no such word beside"),
        (
            "codec_run=a decoder_training.optimisation.batch=8",
            "decoder_training.optimisation: expected no such word beside codec_run=a, whose decoder is taken as it is, found one;"
            " drop it",
        ),
        (
            "codec_run=a budget.decoder_minutes=2",
            "budget.decoder_minutes: expected no such word beside codec_run=a",
        ),
    ],
)
def test_what_is_said_of_a_stage_that_is_not_run_is_refused(words: str, expected: str) -> None:
    with pytest.raises(ValueError, match=re.escape(expected)):
        load_config(TINY, re.split(r" (?=\w+[.=])", words))


@pytest.mark.parametrize("source", ["start_from", "codec_run"])
@pytest.mark.parametrize("preset", PRESETS)
def test_what_a_file_says_of_all_stages_does_for_a_run_of_some(preset: str, source: str) -> None:
    assert not load_config(FOLDER / f"{preset}.yaml", [f"{source}=a"]).trains_codec


def test_the_decoder_of_a_start_is_trained_and_its_codec_if_that_is_said() -> None:
    assert load_config(TINY, ["start_from=a", "budget.decoder_minutes=2"]).refines_decoder
    words = ["start_from=a", "retrain_codec=true", "codec_training.motion=0.1", "budget.codec_minutes=2"]
    assert load_config(TINY, words).trains_codec


def test_the_documents_commands_are_accepted() -> None:
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    lines = "\n".join(page.read_text() for page in pages).replace("\\\n", " ").splitlines()
    found = [line.strip() for line in lines if line.startswith("    astra train config/")]
    assert len(found) > 10
    for line in found:
        words = shlex.split(line, comments=True)
        load_config(ROOT / words[2], [word for word in words[3:] if "=" in word])


def test_a_dataset_may_be_its_path_alone() -> None:
    assert load_config(TINY, ["data.sets=[a, {path: b, weight: 2}]"]).data.sets == (
        DataSource("a"),
        DataSource("b", 2.0),
    )


def test_a_configuration_that_is_not_there_is_missed_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"config: expected a YAML file, found none at .*none.yaml; run in the clone"
    ):
        load_config(tmp_path / "none.yaml")


def test_a_file_that_is_not_a_configuration_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    for text, expected in (
        ("just words", "expected keys and values, found 'just words'"),
        ("a: [", "expected YAML"),
    ):
        file.write_text(text)
        with pytest.raises(ValueError, match=f"x.yaml: {expected}"):
            load_config(file)


def test_the_rate_warms_up_and_falls_to_zero() -> None:
    budget = Budget(minutes=1.0, max_steps=None, warmup=0.02)
    rates = [budget.rate(progress) for progress in (0.0, 0.01, 0.02, 0.51, 1.0)]
    assert rates == pytest.approx([0.0, 0.5, 1.0, 0.5, 0.0], abs=1e-5)


def test_a_budget_ends_in_time_or_in_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("astra_ros.training.budget.monotonic", lambda: now[0])
    timed, counted = Budget(1.0, None, 0.02), Budget(1.0, 4, 0.02)
    now[0] = 30.0
    assert (timed.progress, counted.progress) == (0.5, 0.0)
    counted.step()
    assert counted.progress == 0.25
    later = Budget(9.0, None, 0.02)
    later.resume(steps=7, elapsed_s=45.0, minutes=1.0)
    assert later.progress == 0.75
    now[0] = 500.0
    assert later.progress == 1.0


def test_randomness_follows_from_seed_step_and_part() -> None:
    def values(seed: int, step: int, part: int) -> tuple[float, float]:
        draw = Draw((seed, 0), step, part)
        return float(draw.numpy.random()), float(draw.torch.initial_seed())

    assert values(0, 5, 1) == values(0, 5, 1)
    others = [values(0, 5, 1), values(1, 5, 1), values(0, 6, 1), values(0, 5, 2)]
    assert len({one for one, _ in others}) == len({other for _, other in others}) == 4


def test_on_a_cpu_levels_and_noise_are_one_stream() -> None:
    draw, (_, noise) = Draw((3, 1), 5, 1), np.random.SeedSequence((3, 1, 5, 1)).spawn(2)
    stream = torch.Generator().manual_seed(int(noise.generate_state(1)[0]))
    assert torch.equal(torch.rand(4, generator=draw.torch), torch.rand(4, generator=stream))
    assert torch.equal(draw.normal((2, 3)), torch.randn(2, 3, generator=stream))
    assert torch.equal(torch.rand(4, generator=draw.torch), torch.rand(4, generator=stream))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, found none")
def test_on_a_gpu_noise_is_a_stream_of_its_own() -> None:
    one, other, levels = (Draw((3, 1), 5, 1, "cuda:0") for _ in range(3))
    first, second = one.normal((2, 3)), one.normal((2, 3))
    assert first.device == torch.device("cuda:0")
    assert not torch.equal(first, second)
    assert torch.equal(other.normal((2, 3)), first)
    assert torch.equal(torch.rand(4, generator=one.torch), torch.rand(4, generator=levels.torch))
