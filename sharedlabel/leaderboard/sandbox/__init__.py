"""Where submitted code runs, what it is asked there, and what it may use of the machine."""
