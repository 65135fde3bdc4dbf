"""Training with Lightning: modules for any Trainer, callbacks, a data module of tuples, and trainings that go on."""
