"""The models that do without a transformer: a static title encoder, and a decider on its vectors."""
