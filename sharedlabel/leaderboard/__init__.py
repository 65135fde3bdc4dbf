"""The leaderboard: submitted aggregators, trained and scored where they can see nothing but what the contract gives."""
