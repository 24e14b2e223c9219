"""Sequence autoencoder and sentence VAE: segments of text, each with a latent vector of its own."""

from textmill.base.lazy import exports

__getattr__, __all__ = exports(
    __name__,
    {
        "Vae": "vae",
        "VaeConfig": "config",
        "Autoencoder": "autoencoder",
        "AutoencoderConfig": "config",
        "encode": "writing",
        "latent_report": "measures",
        "write": "writing",
        "sentence_ends": "segments",
    },
)
