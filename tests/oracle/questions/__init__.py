"""What the oracle can be asked: one file a topic, one function a question."""
