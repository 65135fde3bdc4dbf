"""Files and folders: read as plain data, replaced together, owned while a process lives."""
