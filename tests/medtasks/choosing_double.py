"""A model that chooses options by a rule of the test's, and a task run with it."""

from collections.abc import Callable

from lm_eval import simple_evaluate
from lm_eval.api.model import LM
from lm_eval.tasks import TaskManager

import medtasks


class ChoosingLM(LM):
    """Gives a document's option ``choose(doc)`` the likelihood -1 and the others -2; keeps the prompts it sees."""

    def __init__(self, choose: Callable[[dict], int], prompts: list[str]):
        super().__init__()
        self.choose, self.prompts = choose, prompts

    def loglikelihood(self, requests):
        self.prompts += [request.args[0] for request in requests]
        likely = [request.idx == self.choose(request.doc) for request in requests]
        return [(-1.0 if chosen else -2.0, chosen) for chosen in likely]

    def loglikelihood_rolling(self, requests):
        raise NotImplementedError

    def generate_until(self, requests):
        raise NotImplementedError


def evaluate(task: str, choose: Callable[[dict], int], prompts: list[str] | None = None, **arguments) -> dict:
    """The results (metric,filter -> value) of a task of ours; ``prompts`` is filled with what was asked."""
    manager = TaskManager(include_path=str(medtasks.TASKS_DIR), include_defaults=False)
    model = ChoosingLM(choose, [] if prompts is None else prompts)
    found = simple_evaluate(model, tasks=[task], task_manager=manager, log_samples=False, **arguments)
    return found["results"][task]
