"""Language models with a state of fixed size: RNN, GRU, LSTM and minGRU. (Mamba-2 is in `models/state_space.py`.)"""

from textmill.base.lazy import exports

__getattr__, __all__ = exports(
    __name__,
    {
        "RecurrentConfig": "config",
        "MinGruConfig": "config",
        "awd_lstm": "config",
        "Rnn": "networks",
        "Gru": "networks",
        "Lstm": "networks",
        "MinGru": "mingru",
    },
)
