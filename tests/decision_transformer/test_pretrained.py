"""Folders of transformers' DecisionTransformerModel: judged as they are, and written from trained learners."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from transformers import DecisionTransformerConfig, DecisionTransformerModel
from typer.testing import CliRunner

import dtbench
from dtbench import History, IncompatibleTask, InvalidValue
from dtbench.cli.run import app
from dtbench.decision_transformer import DecisionTransformer, PretrainedDecisionTransformer
from dtbench.decision_transformer.huggingface import write_folder
from dtbench.ledger.store import Ledger
from dtbench.testing import check_algorithm, toy_dataset, toy_history

CPU = torch.device("cpu")
SMALL = {"context": 4, "hidden_size": 16, "num_layers": 2, "num_heads": 2, "batch_size": 8}
MOMENTS = {"observation_mean": [0.5, -1.0, 0.0, 2.0], "observation_std": [1.0, 2.0, 0.5, 3.0]}


def saved(folder: Path, **settings: Any) -> DecisionTransformerModel:
    """A model of the toy robot's sizes with random weights, biases and norms, saved."""
    torch.manual_seed(0)
    sizes = {"state_dim": 4, "act_dim": 2, "hidden_size": 16, "n_layer": 2, "n_head": 2, "max_ep_len": 50}
    model = DecisionTransformerModel(DecisionTransformerConfig(**{**sizes, **settings})).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    return model


@torch.no_grad()
def their_actions(model: DecisionTransformerModel, history: History, acting: Mapping[str, Any]) -> torch.Tensor:
    """What transformers' model predicts for the present, fed as the public code feeds its own."""
    mean, std = (torch.tensor(acting[name]) for name in ("observation_mean", "observation_std"))
    predicted = model(
        states=(history.observations.float() - mean) / std,
        actions=history.actions,
        rewards=None,
        returns_to_go=history.returns_to_go[..., None] / acting["return_scale"],
        timesteps=history.timesteps,
        attention_mask=history.mask.long(),
    ).action_preds
    return predicted[:, -1]


@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("steps", [3, 9])  # a padded history and a full one
def test_it_acts_as_transformers_model_does(tmp_path: Path, activation: str, steps: int) -> None:
    model = saved(tmp_path / "model", activation_function=activation)
    data = toy_dataset(discrete_actions=False)
    algorithm = PretrainedDecisionTransformer(
        path=str(tmp_path / "model"), context=5, return_scale=2.0, **{k: tuple(v) for k, v in MOMENTS.items()}
    )
    history = toy_history(data, batch=6, context=5, steps=steps)
    expected = their_actions(model, history, {**MOMENTS, "return_scale": 2.0})
    actions = algorithm.learner(data, seed=0, device=CPU).act(history)
    assert (actions - expected).abs().max() < 1e-5
    assert expected.std() > 0.05  # an agreement about nothing would prove nothing


def test_it_keeps_the_contract_and_learns_nothing(tmp_path: Path) -> None:
    saved(tmp_path)
    algorithm = PretrainedDecisionTransformer(path=str(tmp_path), context=5)
    check_algorithm(algorithm)
    assert algorithm.learner(toy_dataset(discrete_actions=False), seed=0).update() == {}


def test_what_is_left_out_comes_from_the_folder_else_from_the_public_code(tmp_path: Path) -> None:
    saved(tmp_path)
    plain = PretrainedDecisionTransformer(path=str(tmp_path))
    assert (plain.observation_mean, plain.return_scale, plain.context) == (None, 1000.0, 20)
    (tmp_path / "dtbench.json").write_text(json.dumps({**MOMENTS, "return_scale": 3.0, "context": 7}))
    found = PretrainedDecisionTransformer(path=str(tmp_path), context=8)
    assert (found.observation_std, found.return_scale, found.context) == ((1.0, 2.0, 0.5, 3.0), 3.0, 8)


def trained(**changes: Any) -> Any:
    learner = DecisionTransformer(**{**SMALL, **changes}).learner(toy_dataset(discrete_actions=False), seed=3)
    for _ in range(3):
        learner.update()
    return learner


@pytest.mark.parametrize(
    "changes",
    [{}, {"activation": "gelu"}, {"normalize_observations": False}, {"max_timestep": 6}, {"ema_decay": 0.5}],
    ids=str,
)
def test_transformers_loads_a_written_folder_and_acts_equally(tmp_path: Path, changes: dict[str, Any]) -> None:
    learner = trained(**changes)
    write_folder(learner, tmp_path / "model", about={"task": "toy"})
    model, loading = DecisionTransformerModel.from_pretrained(tmp_path / "model", output_loading_info=True)
    assert not any(loading.values())  # nothing is missing, left over or of another size
    acting = json.loads((tmp_path / "model" / "dtbench.json").read_text())
    assert (acting["context"], acting["task"]) == (4, "toy")
    if changes == {"normalize_observations": False}:
        assert acting["observation_mean"] is None
        acting |= {"observation_mean": [0.0] * 4, "observation_std": [1.0] * 4}
    history = toy_history(toy_dataset(discrete_actions=False), batch=6, context=4, steps=5)
    assert (learner.act(history) - their_actions(model.eval(), history, acting)).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("changes", "discrete", "named"),
    [
        ({"returns": "none"}, False, "returns=none"),
        ({"relative_timesteps": True}, False, "relative_timesteps"),
        ({"relative_timesteps": True}, True, r"relative_timesteps.*; actions of Discrete\(3\)"),
    ],
)
def test_what_transformers_lacks_is_named(tmp_path: Path, changes: dict[str, Any], discrete: bool, named: str) -> None:
    learner = DecisionTransformer(**{**SMALL, **changes}).learner(toy_dataset(discrete_actions=discrete), seed=0)
    with pytest.raises(InvalidValue, match=f"lacks what this policy has: .*{named}"):
        write_folder(learner, tmp_path / "model", about={})
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"action_tanh": False}, "action_tanh=False"),
        ({"n_inner": 48, "activation_function": "silu"}, r"n_inner=48 .*; activation_function='silu'"),
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx=True"),
        ({"layer_norm_epsilon": 1e-3}, "layer_norm_epsilon=0.001"),
    ],
)
def test_what_dtbench_lacks_is_named(tmp_path: Path, settings: dict[str, Any], named: str) -> None:
    saved(tmp_path, **settings)
    with pytest.raises(InvalidValue, match=f"Decision Transformer lacks: {named}"):
        PretrainedDecisionTransformer(path=str(tmp_path)).learner(toy_dataset(discrete_actions=False), seed=0)


def test_a_pickle_is_never_read(tmp_path: Path) -> None:
    saved(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(InvalidValue, match=r"pytorch_model\.bin, a pickle, which is code and never read"):
        PretrainedDecisionTransformer(path=str(tmp_path))


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match=r"holds no config\.json.*hf download"):
        PretrainedDecisionTransformer(path=str(tmp_path / "edbeeching"))
    with pytest.raises(InvalidValue, match="dt_pretrained needs a path"):
        PretrainedDecisionTransformer().learner(toy_dataset(discrete_actions=False), seed=0)


@pytest.mark.parametrize(
    ("changes", "printed"),
    [
        ({"hidden_size": 1_000_000, "n_head": 1}, "does not hold what config.json says"),
        ({"n_layer": 900}, "has 2 layers, and n_layer of config.json is 900"),
        ({"hidden_size": "wide"}, "hidden_size is 'wide', not a whole number"),
        ({"model_type": "bert"}, "is of a 'bert'"),
    ],
)
def test_a_configuration_that_is_not_that_of_the_weights_is_refused(
    tmp_path: Path, changes: dict[str, Any], printed: str
) -> None:
    saved(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **changes}))
    with pytest.raises(InvalidValue, match=printed):
        PretrainedDecisionTransformer(path=str(tmp_path)).learner(toy_dataset(discrete_actions=False), seed=0)


@pytest.mark.parametrize("content", [b"", b"\xff" * 64, b"[1, 2]"])
@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "dtbench.json"])
def test_damaged_files_are_one_error(tmp_path: Path, name: str, content: bytes) -> None:
    saved(tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidValue, match=name.replace(".", r"\.")):
        PretrainedDecisionTransformer(path=str(tmp_path)).learner(toy_dataset(discrete_actions=False), seed=0)


def test_a_task_of_other_sizes_is_refused(tmp_path: Path) -> None:
    saved(tmp_path, state_dim=5)
    algorithm = PretrainedDecisionTransformer(path=str(tmp_path))
    with pytest.raises(IncompatibleTask, match="observations of 5 numbers"):
        algorithm.learner(toy_dataset(discrete_actions=False), seed=0)
    saved(tmp_path / "other")
    algorithm = PretrainedDecisionTransformer(path=str(tmp_path / "other"))
    with pytest.raises(IncompatibleTask, match="actions of 2 numbers"):
        algorithm.learner(toy_dataset(discrete_actions=True), seed=0)


def test_moments_of_another_size_are_refused(tmp_path: Path) -> None:
    saved(tmp_path)
    for values, printed in (
        ({"observation_mean": (0.0,)}, "observation_mean has 1 numbers, and the task's observations 4"),
        ({"observation_mean": (0.0,) * 4}, "observation_std has none"),
        ({"observation_mean": (0.0,) * 4, "observation_std": (0.0,) * 4}, "must be positive"),
    ):
        algorithm = PretrainedDecisionTransformer(path=str(tmp_path), **values)  # type: ignore[arg-type]
        with pytest.raises(InvalidValue, match=printed):
            algorithm.learner(toy_dataset(discrete_actions=False), seed=0)


SUITE = """
name: robot
title: A robot
tasks: ["tests.support.toy_tasks:robot"]
contenders:
  {contender}
seeds: [0]
evaluation: {{episodes: 5, every: 3, targets: [1.0, 4.0]}}
"""
TRAINED = f"DT: {{algorithm: dt, train_steps: 3, hyperparameters: {json.dumps(SMALL)}}}"
JUDGED = "Saved: {algorithm: dt_pretrained, train_steps: 0, hyperparameters: {path: model}}"


def run(contender: str, results: str) -> tuple[str, pd.DataFrame]:
    """The key of the suite's one trial, and its final episodes."""
    Path("robot.yaml").write_text(SUITE.format(contender=contender))
    dtbench.run_suite("robot.yaml", results=results)
    (key,) = set(dtbench.load_scores(results).trial)
    episodes = pd.read_parquet(Ledger(Path(results) / "runs").folders()[key] / "episodes.parquet")
    final = episodes[episodes.step == episodes.step.max()].drop(columns="step")
    return str(key), final.reset_index(drop=True)


def test_an_exported_trial_is_judged_as_the_trial_was() -> None:
    key, own = run(TRAINED, "results")
    done = CliRunner().invoke(app, ["export", "hf", key[:8], "--out", "model"], catch_exceptions=False)
    assert (done.exit_code, done.stdout.strip()) == (0, str(Path("model").resolve()))
    _, judged = run(JUDGED, "judged")
    pd.testing.assert_frame_equal(judged, own)
    assert len(own) == 10
    assert own["return"].std() > 0.1
    with pytest.raises(InvalidValue, match=r"model is not empty\. Use --force"):
        CliRunner().invoke(app, ["export", "hf", key, "--out", "model"], catch_exceptions=False)
    again = CliRunner().invoke(app, ["export", "hf", key, "--out", "model", "--force"], catch_exceptions=False)
    assert again.exit_code == 0


def test_a_trial_is_identified_by_its_model_and_not_by_its_path(tmp_path: Path) -> None:
    saved(tmp_path / "model")
    key, _ = run(JUDGED, "results")
    Path("model").rename("moved")
    assert run(JUDGED.replace("model", "moved"), "elsewhere")[0] == key
    saved(tmp_path / "model", initializer_range=0.5)
    assert run(JUDGED, "others")[0] != key


def test_a_model_that_changed_since_its_trial_was_planned_is_refused(tmp_path: Path) -> None:
    saved(tmp_path)
    planned = PretrainedDecisionTransformer(path=str(tmp_path))
    saved(tmp_path, max_ep_len=60)
    with pytest.raises(InvalidValue, match="holds another model than the planned one"):
        PretrainedDecisionTransformer(path=str(tmp_path), sha256=planned.sha256)


def test_other_policies_are_not_exported(tmp_path: Path) -> None:
    key, _ = run("BC: {algorithm: bc, train_steps: 1}", "results")
    with pytest.raises(InvalidValue, match="is no Decision Transformer"):
        CliRunner().invoke(app, ["export", "hf", key, "--out", "model"], catch_exceptions=False)
