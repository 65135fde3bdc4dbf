"""What the leaderboard keeps of every entry, who stands where, and the pages that show it."""
