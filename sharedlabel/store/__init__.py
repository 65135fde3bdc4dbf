"""Content-addressed artifacts: has, load, save. The one room that knows where they lie: in a folder, or at a URL."""

from sharedlabel.store.artifacts import Artifact, Output, Shard, artifact_key, serialize
from sharedlabel.store.local import Store
from sharedlabel.store.opening import of, opened

__all__ = ["Artifact", "Output", "Shard", "Store", "artifact_key", "of", "opened", "serialize"]
