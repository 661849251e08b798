"""Keep ``--use_cache`` sound: one answer file, no answer taken from another configuration, or from half an item.

lm-eval files an answer under a hash of its prompt *before* passages, which is the same whatever is looked up; without
this, a run with k=0 on the file of a run with k=2 gets the scores of k=2. So each configuration has a table of its own
in the file (:func:`own_table`), and in it, beside lm-eval's rows,

    inner:HASH     what the inner model answered to a prompt as it saw it: a run that was killed asks only the rest
    item:TASK:N    the answers to all options of an item, in modes that need them all at once
    shown:TASK:N   which passages the item saw (:mod:`rag_model.records`)
"""

from collections.abc import Mapping, MutableMapping, Sequence

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM, CacheHook, hash_args

from medtasks.errors import InputError

INNER, ITEM, SHOWN = "inner:", "item:", "shown:"


class Answers:
    """Asks the inner model, but nothing that is filed already.

    Attributes:
        table: where answers are filed: an open table of ``--use_cache``, a dict, or None to file nothing.
    """

    def __init__(self, inner: LM, table: MutableMapping | None = None):
        self.inner, self.table = inner, table

    def file_in(self, table: MutableMapping) -> None:
        """File answers in ``table`` from now on, each as soon as the inner model has it."""
        self.table = table
        self.inner.set_cache_hook(_Filing(self))

    def ask(self, method: str, requests: Sequence[Instance]) -> list:
        """The answers, in the order given. The inner model is called once, or not at all."""
        if self.table is None:
            return getattr(self.inner, method)(list(requests)) if requests else []
        found = [self._filed(method, request) for request in requests]
        new = [i for i, answer in enumerate(found) if answer is None]
        if new:
            asked = [requests[i] for i in new]
            for i, request, answer in zip(new, asked, getattr(self.inner, method)(asked), strict=True):
                found[i] = answer
                if self._filed(method, request) is None:  # not every model hands over its answers one by one
                    self.file(method, request.args, answer)
        return found

    def file(self, method: str, arguments: Sequence, answer) -> None:
        """Keep what the inner model answered to these arguments."""
        self.table[INNER + hash_args(method, arguments)] = answer

    def file_items(self, items: Mapping[tuple, Mapping[tuple, object]]) -> None:
        """Keep the answers to all options of items, by their request's arguments: an item wholly or not at all."""
        if self.table is not None:
            for key, group in items.items():
                hashed = {hash_args("loglikelihood", arguments): answer for arguments, answer in group.items()}
                self.table[_named(ITEM, key)] = hashed

    def filed_items(self, items: Mapping[tuple, Sequence[tuple]]) -> dict[tuple, dict[tuple, object]]:
        """The answers by their request's arguments, for those of ``items`` that are filed with all of these arguments.

        lm-eval files options one by one, so a killed run may leave it half an item, whose other half cannot be answered
        by itself in a mode that compares the options.
        """
        found = {}
        for key, group in items.items() if self.table is not None else ():
            filed = self.table.get(_named(ITEM, key), {})
            hashed = {arguments: hash_args("loglikelihood", arguments) for arguments in group}
            if filed and all(name in filed for name in hashed.values()):
                found[key] = {arguments: filed[name] for arguments, name in hashed.items()}
        return found

    def file_shown(self, shown: Mapping[tuple, object]) -> None:
        """Keep what is to be known again of items that will not be asked again."""
        if self.table is not None:
            self.table.update({_named(SHOWN, key): (key, value) for key, value in shown.items()})

    def filed_shown(self) -> dict[tuple, object]:
        """What :meth:`file_shown` was given."""
        return dict(self.table[name] for name in self.table if name.startswith(SHOWN))

    def _filed(self, method: str, request: Instance):
        """The filed answer; None if there is none, or if each request draws one anew."""
        if method == "generate_until" and request.args[1].get("do_sample"):
            return None
        return self.table.get(INNER + hash_args(method, request.args))


class _Filing(CacheHook):
    """Files what the inner model has answered so far under the prompts that it saw."""

    def __init__(self, answers: Answers):
        super().__init__(None)
        self.answers = answers

    def add_partial(self, attr, req, res) -> None:
        self.answers.file(attr, req, res)


def _named(kind: str, key: tuple) -> str:
    return f"{kind}{key[0]}:{key[1]}"


def own_table(cache, name: str) -> None:
    """Let an open ``SqliteDict`` read and write another table of its file, made if it is not there."""
    if not hasattr(cache, "tablename"):
        raise InputError(
            "this version of lm-eval keeps its answers in a way that rag cannot share; leave --use_cache out"
        )
    type(cache)(cache.filename, tablename=name).close()
    cache.tablename = name
