"""Studies, paired statistics and leaderboard files: which adaptation is better, and how sure are we."""
