"""What a model says, of all that it writes: its thoughts taken out, then markup and typographic variety."""

import re
import unicodedata

_THOUGHT = re.compile(r"(</?think(?:ing)?>)", re.IGNORECASE)
_TAG = re.compile(r"<[/|]?[a-z_]{1,20}[|/]?>")  # <b>, </answer>, <|im_end|>, </s>; not <C>
_BOXED = re.compile(r"\\f?boxed\s?\{\s{0,8}")  # how LaTeX says that this is the answer
_COMMAND = re.compile(r"\\[A-Za-z]{1,12} ?\{")  # \text{, \mathrm{, \textbf{
_SIGNS = str.maketrans(
    dict.fromkeys("*`#$\"'\\~“”„‘’", "") | dict.fromkeys("‒–—―", " - ") | {"_": " ", "‐": "-", "−": "-"}
)


def spoken(output: str) -> str:
    """``output`` without what stands between ``<think>`` and ``</think>``.

    A ``</think>`` without beginning ends thoughts that the prompt began (as DeepSeek-R1's chat template does). A
    ``<think>`` without end, where the output was cut off, hides all that follows.
    """
    parts, thinking = [], False
    for part in _THOUGHT.split(output):
        tag = part.lower()
        if tag.startswith("</think"):
            parts = parts if thinking else []
            thinking = False
        elif tag.startswith("<think"):
            thinking = True
        elif not thinking:
            parts.append(part)
    return "".join(parts)


def plain(text: str) -> str:
    """``text`` without Markdown, LaTeX, HTML, quotes and blank lines, single-spaced, in Unicode's compatibility form.

    An ``<answer>`` tag and LaTeX's ``\\boxed{}`` become ``answer:``. A dash becomes a hyphen between spaces.
    """
    text = unicodedata.normalize("NFKC", text).replace("<answer>", "\nanswer: ")
    text = _TAG.sub("", _COMMAND.sub("{", _BOXED.sub(" answer: {", text))).translate(_SIGNS)
    lines = (" ".join(line.split()) for line in text.splitlines())
    return "\n".join(line for line in lines if line)
