"""One transaction on the writer: its marker, its acknowledgement, what happened to a lost COMMIT, and how it is retried."""
