"""What is said of finished cells together: over seeds, compared, ranked, stored."""
