"""How well passages are found: sets of questions whose passages are known, metrics with intervals, a table."""
