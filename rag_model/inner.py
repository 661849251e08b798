"""A harness model around another one, and how that other one is made."""

from collections.abc import Sequence

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM

from medtasks.errors import InputError
from rag_model.cache import Answers

WRITTEN_TOKENS = 128
"""Tokens of a text that a model writes to search with."""
DEVICE = "cuda:0"
"""As lm-eval's command line has it: the CPU where there is no GPU. The default of its models, "cuda", fails there."""


class Around(LM):
    """What lm-eval asks of a model beside answers is the inner model's.

    LM defines these, so each must be named; ``__getattr__`` sees only what LM lacks.
    """

    def __init__(self, inner: LM):
        super().__init__()
        self.inner = inner

    @property
    def rank(self) -> int:
        return self.inner.rank

    @property
    def world_size(self) -> int:
        return self.inner.world_size

    @property
    def device(self):
        return self.inner.device

    @property
    def tokenizer_name(self) -> str:
        return self.inner.tokenizer_name

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        return self.inner.apply_chat_template(chat_history, add_generation_prompt=add_generation_prompt)

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        return self.inner.chat_template(chat_template)

    def all_gather(self, tensor):
        return self.inner.all_gather(tensor)

    def gather_object(self, obj, dst=0):
        return self.inner.gather_object(obj, dst=dst)

    def barrier(self) -> None:
        self.inner.barrier()

    def __getattr__(self, name: str):
        if name == "inner":  # not there until __init__ has set it
            raise AttributeError(name)
        return getattr(self.inner, name)


def make(inner: str | LM, arguments: dict) -> LM:
    """The model that answers: ``inner`` itself, or the one with this name, made with ``arguments``.

    Raises:
        InputError: lm-eval has no model of this name.
    """
    if isinstance(inner, LM):
        return inner
    from lm_eval.api.registry import get_model

    from medtasks.cli import register_models

    if inner == "rag":
        raise InputError("inner=rag: rag cannot answer through itself; give hf-mcq, hf, vllm or another model")
    register_models()
    try:
        model = get_model(inner)
    except ValueError as error:
        raise InputError(f"inner={inner}: {str(error).splitlines()[0]}") from error
    return model.create_from_arg_obj({"device": DEVICE} | arguments)


def written(answers: Answers, texts: Sequence[str]) -> list[str]:
    """What the model behind ``answers`` writes after each of ``texts``, greedily and stripped of outer spaces.

    A model with a chat template is asked in it.
    """
    model = answers.inner
    if getattr(getattr(model, "tokenizer", None), "chat_template", None):
        texts = [model.apply_chat_template([{"role": "user", "content": text}]) for text in texts]
    how = {"until": [], "max_gen_toks": WRITTEN_TOKENS, "do_sample": False}
    requests = [Instance("generate_until", {}, (text, how), 0) for text in texts]
    return [text.strip() for text in answers.ask("generate_until", requests)]
