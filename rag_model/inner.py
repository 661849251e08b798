"""A harness model around another one, and how that other one is made."""

import difflib
import inspect
import logging
import re
from collections.abc import Collection, Sequence

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM

from medtasks.errors import InputError
from rag_model.cache import Answers

logger = logging.getLogger(__name__)

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


UNEXPECTED = re.compile(r"unexpected keyword argument '(?P<name>\w+)'")
MISSING = re.compile(r"missing \d+ required .*argument.*: '(?P<name>\w+)'")
"""What Python says of arguments that a function does not take, or lacks."""
ALIKE = 0.8
"""From which likeness (difflib's, 0 to 1) on a name may be another one, misspelt."""


def make(inner: str | LM, arguments: dict, ours: Collection[str] = ()) -> LM:
    """The model that answers: ``inner`` itself, or the one with this name, made with ``arguments``.

    Args:
        ours: names of arguments that are not the model's, and that one of ``arguments`` may have been meant to be.

    Raises:
        InputError: lm-eval has no model of this name, it does not take one of ``arguments`` or lacks one, or its files
            are not there.
    """
    if isinstance(inner, LM):
        return inner
    if not isinstance(inner, str):
        raise InputError(f"inner={inner}: must be lm-eval's name of a model: hf-mcq, hf, vllm or another")
    from lm_eval.api.registry import get_model

    from medtasks.cli import register_models

    if inner == "rag":
        raise InputError("inner=rag: rag cannot answer through itself; give hf-mcq, hf, vllm or another model")
    register_models()
    try:
        model = get_model(inner)
    except ValueError as error:
        raise InputError(f"inner={inner}: {str(error).splitlines()[0]}") from error
    own = _parameters(model)
    try:
        made = model.create_from_arg_obj({"device": DEVICE} | arguments)
    except TypeError as error:
        if (fault := _fault(str(error), inner, arguments, {*ours, *own})) is None:
            raise
        raise InputError(fault) from error
    except OSError as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"inner={inner}: cannot be loaded ({reason}); check the model's name") from error
    for name in arguments.keys() - own:
        if meant := difflib.get_close_matches(name, ours, n=1, cutoff=ALIKE):
            logger.warning("rag: %s was handed on to %s; was %s meant?", name, inner, meant[0])
    return made


def _parameters(model: type) -> set[str]:
    """Names of the arguments with which a class, or one that it inherits from, can be made."""
    makers = (vars(part)["__init__"] for part in model.__mro__ if "__init__" in vars(part) and part is not object)
    return {name for maker in makers for name in inspect.signature(maker).parameters}


def _fault(said: str, inner: str, arguments: dict, known: Collection[str]) -> str | None:
    """What is wrong with ``arguments``, by what Python ``said`` when the model was made of them, and the mend; None if
    something else is."""
    if (lacks := MISSING.search(said)) and lacks["name"] not in arguments:
        return f"inner={inner} needs {lacks['name']}=: give it beside the arguments of rag"
    if not (unknown := UNEXPECTED.search(said)) or unknown["name"] not in arguments:
        return None
    name = unknown["name"]
    meant = difflib.get_close_matches(name, sorted(known), n=1)
    mend = f"did you mean {meant[0]}?" if meant else "take it out"
    return f"{name}={arguments[name]}: neither rag nor its inner model {inner} takes this argument; {mend}"


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
