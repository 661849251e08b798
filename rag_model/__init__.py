"""Look up: build a retrieval index over a corpus, search it, and answer benchmark questions with what was found."""
