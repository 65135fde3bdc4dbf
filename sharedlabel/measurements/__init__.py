"""What a network costs: counted, timed, and how much of it can go."""
