"""The decoders of `transformers`: their configurations and weights, translated both ways. Touches no file."""
