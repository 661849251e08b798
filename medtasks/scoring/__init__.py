"""The harness model ``hf-mcq``: what ``hf`` answers, with each token of a batch computed once and nothing padded."""
