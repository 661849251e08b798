"""Leaderboards: files in the Open Medical-LLM Leaderboard's format, checked, ranked and uploaded."""
