"""A data set, a backbone, a pruner and an aggregator for sharedlabel."""
