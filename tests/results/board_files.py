"""What tests of leaderboard files start from: lm-eval's results of the leaderboard's nine tasks, in its own format."""

import json

from results.boards import leaderboard, submission

DATE = 1714000000.25  # 2024-04-24T23:06:40.250000 UTC


def harness_results(ours=False, accuracies=None, tasks=None, **changes):
    """lm-eval's results of `multimedqa` (of `open_medical_llm` if ``ours``) on whole test sets, 0-shot."""
    names = {name: ours_name if ours else name for name, ours_name in leaderboard.TASKS.items()}
    sizes = submission.sizes()
    values = {name: 0.3 + i / 100 for i, name in enumerate(leaderboard.TASKS)} | (accuracies or {})
    group = "open_medical_llm" if ours else "multimedqa"
    results = {
        "results": {group: {"acc,none": 0.34, "acc_stderr,none": 0.01, "alias": group}}
        | {task: _metrics(values[name], sizes[name]) | {"alias": name} for name, task in names.items()},
        "configs": {
            task: {"task": task, "num_fewshot": 0}
            | ({"dataset_kwargs": {"benchmark": task.replace("_lmeval", "")}} if ours else {"dataset_kwargs": None})
            for task in names.values()
        },
        "versions": dict.fromkeys(names.values(), 1.0),
        "n-shot": dict.fromkeys(names.values(), 0),
        "n-samples": {task: {"original": sizes[name], "effective": sizes[name]} for name, task in names.items()},
        "config": {
            "model": "hf",
            "model_args": {"pretrained": "acme/doctor-1b", "dtype": "bfloat16"},
            "model_dtype": "torch.bfloat16",
            "model_sha": "0123abc",
            "limit": None,
        },
        "date": DATE,
        "chat_template": None,
        "system_instruction": None,
    }
    return results | changes


def _metrics(value, items):
    error = (value * (1 - value) / (items - 1)) ** 0.5
    return {"acc,none": value, "acc_stderr,none": error, "acc_norm,none": 0.5, "nll,none": float("nan")}


def write_results(folder, results):
    """As ``lm_eval --output_path folder`` names it."""
    file = folder / "acme__doctor-1b" / "results_2024-04-24T23-07-00.123456.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(results))
    return folder


def write_board_file(folder, model, accuracies, date="2024-04-24T21-53-21.123456", stderrs=None, **config):
    """A leaderboard file as anyone may have written it."""
    content = {
        "config": {"model_dtype": "torch.float16", "model_name": model, "model_sha": "main"} | config,
        "results": {
            task: {"acc,none": value} | ({"acc_stderr,none": stderrs} if stderrs is not None else {})
            for task, value in accuracies.items()
        },
    }
    file = folder / model / f"results_{date}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))
    return file


def nine(value):
    """The same accuracy on all of the leaderboard's tasks."""
    return dict.fromkeys(leaderboard.TASKS, value)
