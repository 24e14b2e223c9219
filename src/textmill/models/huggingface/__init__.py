"""Files that an exported model carries so that `transformers` can open it. Never imported by Textmill itself."""
