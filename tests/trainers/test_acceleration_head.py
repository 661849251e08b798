"""The head's loss is torch's and TRL's; models and losses that it does not fit are left to TRL."""

import json
import os

import pytest
import torch

from trainers import batches, sft, stage
from trainers.acceleration import loss


def losses(out) -> list[float]:
    return [entry["loss"] for entry in json.loads((out / "loss.json").read_text())]


@pytest.mark.parametrize(("tokens", "chunk"), [(1, 8), (8, 8), (21, 8), (21, 1)])
def test_the_head_s_loss_is_torch_s(monkeypatch, tokens, chunk):
    monkeypatch.setattr(loss, "CHUNK", chunk)
    torch.manual_seed(0)
    hidden, weight = torch.randn(tokens, 6, requires_grad=True), torch.randn(11, 6)
    labels = torch.randint(11, (tokens,))
    labels[::2] = (hidden @ weight.t()).argmax(-1)[::2]
    logits = hidden @ weight.t()
    expected = torch.nn.functional.cross_entropy(logits, labels, reduction="sum")
    found, hits = loss.linear_cross_entropy(hidden, weight, labels)
    torch.testing.assert_close(found, expected)
    assert hits == (logits.argmax(-1) == labels).sum() and hits >= (tokens + 1) // 2
    ours, theirs = (torch.autograd.grad(value / 7, hidden)[0] for value in (found, expected))
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("vocabulary", [7, 64, 50_000])
def test_the_kernel_gives_what_torch_gives(dtype, vocabulary):
    """On a GPU, or in Triton's interpreter (TRITON_INTERPRET=1) where Triton is installed."""
    pytest.importorskip("triton", reason="Triton comes with torch for GPUs")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and os.environ.get("TRITON_INTERPRET") != "1":
        pytest.skip("no GPU here, and TRITON_INTERPRET is not 1")
    from trainers.acceleration import kernels

    torch.manual_seed(0)
    logits = (3 * torch.randn(9, vocabulary, device=device)).to(dtype)
    labels = torch.randint(vocabulary, (9,), device=device)
    labels[::2] = logits.argmax(-1)[::2]
    expected, hits, gradient = loss._plain_chunk(logits, labels)
    found = kernels.cross_entropy_(logits, labels)  # which writes over them
    torch.testing.assert_close(found[0], expected)
    assert found[1] == hits >= 5
    torch.testing.assert_close(logits, gradient)


def test_no_labels_are_no_loss_and_no_gradient():
    hidden = torch.randn(5, 6, requires_grad=True)
    scored, labels = torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64)
    found, hits = loss.linear_cross_entropy(hidden.index_select(0, scored), torch.randn(11, 6), labels)
    found.backward()
    assert found == 0 and hits == 0 and hidden.grad.shape == (5, 6) and not hidden.grad.any()


@pytest.mark.parametrize("head", ["own", "trl"])
def test_a_step_without_labels_teaches_nothing(recipe_file, head):
    """The end of a passage that fills its row may be a row of one token."""
    trainer = stage._build(sft.prepare(["--config", recipe_file()]))
    trainer.has_own_head = head == "own"
    batch = trainer.data_collator([{"input_ids": [7], "labels": [7], "seq_lengths": [1], "examples": [0]}])
    found = trainer.compute_loss(trainer.model.train(), batch, num_items_in_batch=torch.tensor(0))
    found.backward()
    assert found == 0 and not any(weight.grad.any() for weight in trainer.model.parameters() if weight.requires_grad)


def test_without_gradients_the_loss_is_the_same():
    torch.manual_seed(0)
    hidden, weight, labels = torch.randn(5, 6), torch.randn(11, 6), torch.arange(5)
    with torch.no_grad():
        found, _ = loss.linear_cross_entropy(hidden, weight, labels)
    torch.testing.assert_close(found, torch.nn.functional.cross_entropy(hidden @ weight.t(), labels, reduction="sum"))


def test_the_head_under_autocast_is_autocast_s():
    torch.manual_seed(0)
    hidden, weight, labels = torch.randn(9, 6, requires_grad=True), torch.randn(11, 6), torch.arange(9)
    with torch.autocast("cpu", torch.bfloat16):
        found, _ = loss.linear_cross_entropy(hidden, weight, labels)
        logits = torch.nn.functional.linear(hidden, weight)
    expected = torch.nn.functional.cross_entropy(logits.float(), labels, reduction="sum")
    torch.testing.assert_close(found, expected)
    ours, theirs = (torch.autograd.grad(value, hidden)[0] for value in (found, expected))
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, theirs, rtol=0.02, atol=0.02)


def test_the_own_head_gives_what_trl_s_gives(recipe_file, micro_batch):
    settings = {"lora_dropout": 0.0, "answer_style": "rationale", "learning_rate": 0.1}
    trainer = stage._build(sft.prepare(["--config", recipe_file(**settings)]))
    assert trainer.has_own_head
    torch.manual_seed(0)
    for name, weight in trainer.model.named_parameters():
        if "lora_B" in name:
            weight.data.normal_(0, 0.2)
    rows = [trainer.train_dataset[n] for n in range(4)]
    for row in rows:  # every third label is the likeliest token
        likeliest = trainer.model(input_ids=torch.tensor([row["input_ids"]])).logits[0, :-1].argmax(-1)
        row["labels"][1::3] = likeliest[::3].tolist()
    ours = micro_batch(trainer, rows)
    trainer.has_own_head = False
    theirs = micro_batch(trainer, rows)
    torch.testing.assert_close(ours[0], theirs[0])
    assert ours[1] == pytest.approx(theirs[1]) and 0 < ours[1] < 1
    torch.testing.assert_close(ours[2], theirs[2], rtol=1e-4, atol=1e-6)


OTHER_HEADS = [
    ("Gemma2", {"head_dim": 8, "final_logit_softcapping": 5.0}),
    ("Cohere", {"logit_scale": 0.25}),
    ("Granite", {"logits_scaling": 4.0}),
    ("Phi", {}),  # a bias
    ("Mixtral", {"num_local_experts": 2, "output_router_logits": True, "router_aux_loss_coef": 0.1}),
]


@pytest.mark.parametrize(("name", "settings"), OTHER_HEADS, ids=[name for name, _ in OTHER_HEADS])
def test_what_the_own_head_would_get_wrong_is_left_to_trl(recipe_file, of_kind, tmp_path, name, settings):
    from transformers import AutoModelForCausalLM

    sizes = {
        "intermediate_size": 64,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "initializer_range": 0.3,
    }
    folder = of_kind(name, **(sizes | settings))
    targets = ["q_proj", "v_proj"]
    path = recipe_file(model_name_or_path=folder, lora_target_modules=targets, max_steps=4, lora_dropout=0.0)
    trainer = stage._build(sft.prepare(["--config", path]))
    assert not trainer.has_own_head
    sft.main(["--config", path])
    # the first loss, by the model's own logits
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    expected = []
    for row in (trainer.train_dataset[n] for n in range(4)):
        ids, labels = torch.tensor([row["input_ids"]]), torch.tensor(row["labels"])
        with torch.no_grad():
            logits = model(ids).logits[0, :-1]
        kept = labels[1:] != batches.IGNORED
        expected.append(torch.nn.functional.cross_entropy(logits[kept], labels[1:][kept]))
    found = losses(tmp_path / "out")
    router = 0.25 if name == "Mixtral" else 0  # its loss comes on top: about the coefficient times experts per token
    assert 0 <= found[0] - torch.stack(expected).mean().item() + 1e-3 <= router + 2e-3
    assert len(found) == 4 and found[-1] != found[0]


@pytest.mark.parametrize("changes", [{"label_smoothing_factor": 0.2}, {"loss_type": "dft"}])
def test_another_loss_is_the_one_that_is_learned_by(recipe_file, tmp_path, changes):
    """Label smoothing pulls towards all tokens; DFT weighs a token's loss by its probability (arXiv:2508.05629)."""
    usual = {"lora_dropout": 0.0, "max_steps": 1}
    trainer = stage._build(sft.prepare(["--config", recipe_file(**usual)]))
    [rows] = [[trainer.train_dataset[n] for n in range(4)]]
    expected = []
    for row in rows:
        ids, labels = torch.tensor([row["input_ids"]]), torch.tensor(row["labels"])
        logits = trainer.model.eval()(input_ids=ids).logits[0, :-1].float()
        kept = labels[1:] != batches.IGNORED
        scores = logits[kept].log_softmax(-1)
        own = scores.gather(-1, labels[1:][kept][:, None])[:, 0]
        expected.append(-own * own.exp() if "loss_type" in changes else -(0.8 * own + 0.2 * scores.mean(-1)))
    sft.main(["--config", recipe_file(**usual | changes)])
    assert losses(tmp_path / "out")[0] == pytest.approx(torch.cat(expected).mean().item(), rel=1e-4)
