"""A submission: a folder with one aggregator, its metadata and a README; no weights, no binaries, no links."""
