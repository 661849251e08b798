"""NEFTune: noise of the size that each document's length asks for, in training alone."""

import pytest
import torch

from trainers import noise, sft, stage


def test_a_document_s_noise_depends_on_its_own_length():
    width, lengths = 16, [4, 100]
    model = torch.nn.Embedding(10, width)
    model.get_input_embeddings = lambda: model
    look_at = noise.add(model, alpha=5.0)
    ids = torch.zeros(1, sum(lengths), dtype=torch.long)
    plain = model.weight[ids]
    look_at(torch.tensor([0, 4, 104, 104], dtype=torch.int32))
    torch.manual_seed(0)
    found = (model.train()(ids) - plain)[0].abs()
    for part, length in zip(found.split(lengths), lengths, strict=True):
        largest = 5.0 / (length * width) ** 0.5
        assert 0.8 * largest < part.max() <= largest * 1.001
    torch.testing.assert_close(model.eval()(ids), plain)


@pytest.mark.parametrize("packing", [False, True])
def test_a_run_with_noise_learns_something_else(recipe_file, packing):
    losses = []
    for alpha in (None, 5.0):
        settings = {"packing": packing, "packing_strategy": "bfd"} if packing else {}
        trainer = stage._build(sft.prepare(["--config", recipe_file(neftune_noise_alpha=alpha, **settings)]))
        trainer._save_checkpoint = lambda *_: None
        trainer.train()
        losses.append([entry["loss"] for entry in trainer.state.log_history if "loss" in entry])
    assert all(torch.isfinite(torch.tensor(each)).all() for each in losses) and losses[0][0] != losses[1][0]
