"""The network: a pure function of its inputs, its parts, and the files its weights come from."""
