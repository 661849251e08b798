"""Keep ``--use_cache`` sound: one answer file, no answer taken from another configuration.

lm-eval files an answer under a hash of its prompt *before* passages, which is the same whatever is looked up; without
this, a run with k=0 on the file of a run with k=2 gets the scores of k=2.
"""

from lm_eval.api.model import CacheHook, hash_args

from medtasks.errors import InputError


class PartialAnswers(CacheHook):
    """Files what the inner model answers to a prompt with passages under the prompt without."""

    def __init__(self, outer: CacheHook, originals: dict[str, tuple]):
        super().__init__(None)
        self.outer, self.originals = outer, originals

    def add_partial(self, attr, req, res) -> None:
        self.outer.add_partial(attr, self.originals.get(hash_args(attr, req), req), res)


def own_table(cache, name: str) -> None:
    """Let an open ``SqliteDict`` read and write another table of its file, made if it is not there."""
    if not hasattr(cache, "tablename"):
        raise InputError(
            "this version of lm-eval keeps its answers in a way that rag cannot share; leave --use_cache out"
        )
    type(cache)(cache.filename, tablename=name).close()
    cache.tablename = name
