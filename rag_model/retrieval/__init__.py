"""Queries -> passages of an index. One class, :class:`Retrieval`; what it is made of can be used alone:

========== ========================================================
dense      exact search over the vectors, and the store's
top_k      the largest of many scores
bm25       search by words
fusion     reciprocal rank fusion, and several queries in turn
mmr        passages that do not repeat each other
rerank     a cross-encoder's order
queries    what is searched for: fields of an item, or written
cache      what was found, kept on disk
foreign    LlamaIndex's retrievers as ours
llama      ours as LlamaIndex's
pipeline   all of it, in order
========== ========================================================
"""

from rag_model.retrieval.pipeline import SEARCHES, Found, Retrieval

__all__ = ["SEARCHES", "Found", "Retrieval"]
