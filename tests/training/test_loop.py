"""The training loop: resumes to the bit, chooses by validation, stops on NaN, leaves no trace in global state."""

import csv
import math

import pytest
import torch
from torch import nn

from ecavatar.errors import ConfigError, TrainingError
from ecavatar.seeding import stream
from ecavatar.training.loop import holding, learning_rate, seeded_torch, train, write_curve
from tests.fabricate_training import SETTINGS, FramesObjective


class Line(nn.Module):
    """y = a x + b with dropout, so that the random state matters."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(1, 16), nn.Dropout(0.5), nn.Linear(16, 1))

    def forward(self, batch):
        x, y = batch
        return {"loss": (self.net(x) - y).square().mean(), "size": x.abs().mean()}


class LineObjective:
    name, score = "line", "val_error"

    def __init__(self, items=10, poison=None, stop_at=None, scores=None):
        with seeded_torch(0, "line", "weights"):
            self.module = Line()
        self.x = torch.linspace(-1, 1, items)[:, None]
        self.poison, self.stop_at, self.scores = poison, stop_at, scores
        self.batches = 0

    def __len__(self):
        return len(self.x)

    def batch(self, items, device):
        self.batches += 1
        if self.batches == self.stop_at:
            raise KeyboardInterrupt
        x = self.x[items].to(device)
        return x, x * 3 + (math.nan if self.poison in items else 1)

    def describe(self, items):
        return "items " + ",".join(map(str, items))

    def validate(self, device):
        if self.scores is not None:
            return {"val_error": self.scores.pop(0)}
        return {"val_error": float((self.module.net(self.x) - 3 * self.x - 1).square().mean())}


def run(objective, settings, path, **changes):
    return train(objective, settings.model_copy(update=changes), seed=1, data_hash="d", checkpoint=path)


@pytest.mark.parametrize("stop_at", [2, 6, 9, 15])
def test_a_killed_and_resumed_run_ends_with_the_same_bytes(tmp_path, training_settings, stop_at):
    whole = LineObjective()
    expected = run(whole, training_settings, tmp_path / "whole.pt")
    with pytest.raises(KeyboardInterrupt):
        run(LineObjective(stop_at=stop_at), training_settings, tmp_path / "killed.pt")
    resumed = LineObjective()
    state = run(resumed, training_settings, tmp_path / "killed.pt")
    assert resumed.batches == 16 - (stop_at - 1) // 4 * 4, "it must go on from the last finished epoch"
    assert state.rows == expected.rows
    for name, tensor in whole.module.state_dict().items():
        assert torch.equal(tensor, resumed.module.state_dict()[name]), name


def test_a_checkpoint_of_other_settings_or_data_is_not_used(tmp_path, training_settings):
    path = tmp_path / "c.pt"
    for stop_at, changes in ((6, {}), (None, {"learning_rate": 0.02})):
        objective = LineObjective(stop_at=stop_at)
        if stop_at:
            with pytest.raises(KeyboardInterrupt):
                run(objective, training_settings, path)
        else:
            run(objective, training_settings, path, **changes)
            assert objective.batches == 16


def test_a_damaged_checkpoint_costs_time_only(tmp_path, training_settings):
    (tmp_path / "c.pt").write_bytes(b"not a checkpoint")
    objective = LineObjective()
    run(objective, training_settings, tmp_path / "c.pt")
    assert objective.batches == 16


def test_training_learns_and_gives_back_the_best_weights(tmp_path, training_settings):
    objective = LineObjective(items=40)
    with torch.no_grad():
        before = objective.validate("cpu")["val_error"]
    state = run(objective, training_settings, tmp_path / "c.pt", epochs=40, validate_every=1)
    assert state.best_score < 0.2 * before
    objective.module.eval()
    with torch.no_grad():
        after = objective.validate("cpu")["val_error"]
    assert after == pytest.approx(state.best_score, rel=1e-5)


def test_the_best_epoch_wins_not_the_last(tmp_path, training_settings):
    objective = LineObjective(scores=[9.0, 3.0, 1.0, 2.0, 4.0])
    state = run(objective, training_settings, tmp_path / "c.pt", validate_every=1)
    assert (state.best_epoch, state.best_score) == (2, 1.0)
    for name, tensor in objective.module.state_dict().items():
        assert torch.equal(tensor, state.best[name])


def test_a_loss_that_is_not_finite_stops_and_names_the_batch(tmp_path, training_settings):
    with pytest.raises(TrainingError, match=r"not finite.*Batch: items .*7"):
        run(LineObjective(poison=7), training_settings, tmp_path / "c.pt")
    with pytest.raises(TrainingError, match="val_error"):
        run(LineObjective(scores=[math.nan]), training_settings, tmp_path / "c.pt")
    with pytest.raises(TrainingError, match="empty"):
        run(LineObjective(items=0), training_settings, tmp_path / "c.pt")


def test_global_random_state_and_thread_count_are_left_alone(tmp_path, training_settings):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    threads = torch.get_num_threads()
    run(LineObjective(), training_settings, tmp_path / "c.pt", threads=threads + 1)
    assert torch.equal(torch.rand(3), expected)
    assert torch.get_num_threads() == threads


def test_impossible_hardware_is_refused(tmp_path, training_settings):
    with pytest.raises(ConfigError, match="fp16"):
        run(LineObjective(), training_settings, tmp_path / "c.pt", precision="fp16")
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="GPU"):
            run(LineObjective(), training_settings, tmp_path / "c.pt", device="cuda")


def test_bfloat16_trains_too(tmp_path, training_settings):
    run(LineObjective(), training_settings, tmp_path / "c.pt", precision="bf16")
    run(LineObjective(), training_settings, tmp_path / "c.pt", precision="no")


def test_schedules(training_settings):
    rates = [learning_rate(training_settings, step, 100) for step in range(100)]
    assert max(rates) == pytest.approx(0.01)
    assert rates.index(max(rates)) == 4
    assert rates[0] == pytest.approx(0.002)
    assert rates[-1] < 0.0002
    assert rates[4:] == sorted(rates[4:], reverse=True)
    constant = training_settings.model_copy(update={"schedule": "constant"})
    assert {learning_rate(constant, step, 100) for step in range(100)} == {0.01}


def test_the_curve_has_a_row_per_epoch_and_gaps_where_nothing_was_measured(tmp_path, training_settings):
    state = run(LineObjective(), training_settings, tmp_path / "c.pt")
    write_curve(tmp_path / "curve.csv", state.rows)
    with (tmp_path / "curve.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["0", "1", "2", "3", "4"]
    assert [bool(row["val_error"]) for row in rows] == [True, False, True, False, True]
    assert [bool(row["train_size"]) for row in rows] == [False, True, True, True, True]


def test_a_batch_a_step_is_plain_adam_to_the_bit(tmp_path, training_settings):
    """Neither accumulation nor processes nor weights of batches change the one simple case."""
    settings = training_settings.model_copy(update={"schedule": "constant", "clip_norm": None})
    objective, plain = LineObjective(), LineObjective()
    state = run(objective, settings, tmp_path / "c.pt")
    optimiser = torch.optim.Adam(plain.module.parameters(), lr=0.01, fused=True)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with seeded_torch(1, "line", "training"):
        for epoch in range(4):
            total, order = 0.0, stream(1, "line", "epoch", epoch).permutation(10)
            plain.module.train()
            for first in range(0, 10, 3):
                items = order[first : first + 3].tolist()
                loss = plain.module(plain.batch(items, torch.device("cpu")))["loss"]
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                total += float(loss.detach()) * len(items)
            assert state.rows[epoch + 1]["train_loss"] == total / 10
    torch.set_num_threads(threads)
    for name, tensor in plain.module.state_dict().items():
        assert torch.equal(tensor, state.last[name]), name


@pytest.mark.parametrize("bucket", [False, True])
@pytest.mark.parametrize(("accumulate", "batch"), [(2, 4), (4, 2), (8, 1)])
def test_accumulated_batches_take_the_steps_of_one_large_batch(tmp_path, accumulate, batch, bucket):
    """Clips of unlike length, an incomplete last step, losses averaged over unlike things."""
    large = run(FramesObjective(), SETTINGS, tmp_path / "a.pt", accumulate=1, batch=8, bucket=bucket)
    objective = FramesObjective()
    small = run(objective, SETTINGS, tmp_path / "b.pt", accumulate=accumulate, batch=batch, bucket=bucket)
    assert max(map(len, objective.seen)) == batch
    for expected, row in zip(large.rows, small.rows, strict=True):
        assert row == pytest.approx(expected, rel=1e-5)
    for name, tensor in large.last.items():
        torch.testing.assert_close(small.last[name], tensor, rtol=0, atol=1e-6)


def test_batches_without_weights_would_not(tmp_path):
    """The test above can fail: counting by items alone gives another gradient."""
    large = run(FramesObjective(), SETTINGS, tmp_path / "a.pt", accumulate=1, batch=8)
    objective = FramesObjective()
    objective.weight = len
    small = run(objective, SETTINGS, tmp_path / "b.pt", accumulate=4, batch=2)
    assert small.rows[-1]["train_loss"] != pytest.approx(large.rows[-1]["train_loss"], rel=1e-5)


def test_one_weight_for_all_losses_is_enough_where_they_average_the_same(tmp_path, training_settings):
    settings = training_settings.model_copy(update={"epochs": 3, "accumulate": 1, "batch": 4})
    states = []
    for changes in ({}, {"accumulate": 4, "batch": 1}):
        objective = FramesObjective()
        objective.total = objective.module.total = lambda losses: losses["place"]
        objective.weight = lambda items, clips=objective.clips: sum(len(clips[item][0]) for item in items)
        states.append(run(objective, settings, tmp_path / f"{len(states)}.pt", **changes))
    for name, tensor in states[0].last.items():
        torch.testing.assert_close(states[1].last[name], tensor, rtol=0, atol=1e-6)


def test_a_broken_batch_among_accumulated_ones_is_the_one_named(tmp_path):
    objective = FramesObjective(poison=7)
    with pytest.raises(TrainingError) as caught:
        run(objective, SETTINGS, tmp_path / "c.pt")
    named = str(caught.value).split("items ")[1].split(".")[0].split(",")
    assert "7" in named
    assert len(named) <= SETTINGS.batch


def test_patience_ends_training_and_the_curve_there(tmp_path, training_settings, caplog):
    scores = [9.0, 3.0, 1.0, 2.0, 4.0, 0.1]
    with caplog.at_level("INFO", logger="ecavatar"):
        objective = LineObjective(scores=scores)
        state = run(objective, training_settings, tmp_path / "c.pt", epochs=9, validate_every=1, patience=2)
    assert (state.epoch, state.best_epoch, len(state.rows)) == (4, 2, 5)
    assert "stopped early, 2 validations without a better one than epoch 2" in caplog.text
    for name, tensor in objective.module.state_dict().items():
        assert torch.equal(tensor, state.best[name])


def test_patience_is_counted_in_validations(tmp_path, training_settings):
    objective = LineObjective(scores=[1.0, 2.0, 3.0, 4.0])
    state = run(objective, training_settings, tmp_path / "c.pt", epochs=20, validate_every=3, patience=2)
    assert (state.epoch, state.best_epoch) == (6, 0)


def test_a_killed_run_goes_on_with_its_patience(tmp_path, training_settings):
    changes = {"epochs": 9, "validate_every": 1, "patience": 3}
    killed = LineObjective(scores=[1.0, 2.0, 2.0], stop_at=9)  # in the third epoch, two validations were worse
    with pytest.raises(KeyboardInterrupt):
        run(killed, training_settings, tmp_path / "c.pt", **changes)
    resumed = LineObjective(scores=[2.0, 2.0])
    state = run(resumed, training_settings, tmp_path / "c.pt", **changes)
    assert (state.epoch, resumed.scores) == (3, [2.0])


def test_the_last_weights_are_kept_beside_the_best(tmp_path, training_settings):
    objective = LineObjective(scores=[9.0, 3.0, 1.0, 2.0, 4.0])
    state = run(objective, training_settings, tmp_path / "c.pt", validate_every=1)
    assert not torch.equal(state.last["net.0.weight"], state.best["net.0.weight"])
    with holding(objective.module, state.last):
        assert torch.equal(objective.module.net[0].weight, state.last["net.0.weight"])
    assert torch.equal(objective.module.net[0].weight, state.best["net.0.weight"])
