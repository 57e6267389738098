"""The visible loop, its steps, callbacks and checkpoints."""
