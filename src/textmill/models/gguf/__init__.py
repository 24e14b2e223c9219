"""GGUF, the file format of llama.cpp: reading, writing, its quantized numbers, its names for things."""
