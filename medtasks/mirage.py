"""BioASQ's yes/no questions as MIRAGE asks them, from MIRAGE's own file: they are not on the Hub.

Xiong et al. 2024, arXiv:2402.13178: 618 questions of BioASQ's task B (2019 to 2023), without their snippets.
"""

import json

from medtasks import sources
from medtasks.errors import InputError
from medtasks.items import as_items

FILES = ("mirage/benchmark.json", "benchmark.json")


def bioasq() -> dict:
    """The rows of the part ``bioasq`` of MIRAGE's ``benchmark.json``, all for testing.

    Raises:
        InputError: no such file in a folder of ``MEDTASKS_DATA``, or it is not MIRAGE's.
    """
    import datasets

    file = sources.find_file(FILES)
    if file is None:
        raise InputError(
            f"BioASQ: no file {' or '.join(FILES)} in a folder of {sources.ENV}; put MIRAGE's benchmark.json there "
            "(medtasks/mirage/README.md says where it is)"
        )
    try:
        questions = json.loads(file.read_text(encoding="utf-8"))["bioasq"]
        rows = [
            {"id": id, "question": q["question"], "options": list(q["options"].values())}
            | {"answer": list(q["options"]).index(q["answer"])}
            for id, q in questions.items()
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{file}: not MIRAGE's benchmark.json ({type(error).__name__}: {error})") from error
    return {"test": sources.with_places(datasets.Dataset.from_list(rows), "test")}


def from_bioasq(rows):
    """Items of :func:`bioasq`'s rows: columns ``id, question, options, answer``."""

    def one(row):
        item = {"id": f"bioasq-{row['id']}", "context": "", "subject": "", "rationale": ""}
        return item | {name: row[name] for name in ("question", "options", "answer")}

    return as_items(rows, one)
