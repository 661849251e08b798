"""Fit how ``rag`` answers on dev splits (``medadapt rag tune``).

========== ============================================================
dev        the items to choose by, and what keeps test items out
scores     every item scored once in each arm
grid       settings, and what each of them makes of the same scores
choice     accuracies with their errors, and the rule that chooses
command    ``medadapt rag tune``
========== ============================================================
"""
