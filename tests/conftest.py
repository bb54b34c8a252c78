"""Tiny random models of the four families, saved as Hugging Face folders and loaded from there."""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

# Before a conftest imports torch: workers that each use every core wait for one another.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

FAMILIES = ("gpt2", "mistral", "llama", "neox")
VOCABULARY = 300
N_LAYERS = 3
N_HEADS = 4


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--real-tokenizers",
        type=Path,
        default=None,
        metavar="DIR",
        help="folder with gpt2/, gpt-neox/, mistral/ and llama2/, each with the model's real "
        "tokenizer.json: tests that need them are skipped without it",
    )


def pytest_configure(config: pytest.Config) -> None:
    # Before anything imports huggingface_hub, which reads it once: no test fills a user's caches.
    if not hasattr(config, "workerinput"):  # workers inherit the controller's
        folder = tempfile.mkdtemp(prefix="tinyablation-tests-")
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
        os.environ["HF_HOME"] = folder


@pytest.fixture(scope="session")
def real_tokenizers(pytestconfig: pytest.Config) -> Path:
    """The folder of real tokenizers; the test is skipped where none was named."""
    folder: Path | None = pytestconfig.option.real_tokenizers
    if folder is None:
        pytest.skip("give --real-tokenizers DIR, a folder with gpt2/, gpt-neox/, mistral/, llama2/")
    return folder.resolve(strict=True)


@pytest.fixture(scope="session")
def tiny_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Model folders by family: 3 layers x 4 heads, d_model 32; Mistral has 2 key-value heads.

    Biases and norm weights are random too (a fresh model has none to speak of), so that what an
    ablation does to biases shows.
    """
    import torch
    import transformers as hf
    from tokenizers import Tokenizer, models, pre_tokenizers

    shared: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": N_LAYERS,
        "num_attention_heads": N_HEADS,
        "max_position_embeddings": 64,
        "bos_token_id": 0,
        "eos_token_id": 0,
    }
    gpt2 = {"vocab_size": VOCABULARY, "n_positions": 64, "n_embd": 32, "n_layer": N_LAYERS}
    configs: dict[str, Any] = {
        "gpt2": hf.GPT2Config(**gpt2, n_head=N_HEADS, bos_token_id=0, eos_token_id=0),
        "mistral": hf.MistralConfig(**shared, num_key_value_heads=2, sliding_window=32),
        "llama": hf.LlamaConfig(**shared, num_key_value_heads=N_HEADS),
        "neox": hf.GPTNeoXConfig(**shared, use_parallel_residual=True),
    }
    folders = {}
    for index, family in enumerate(FAMILIES):
        torch.manual_seed(index)
        model = hf.AutoModelForCausalLM.from_config(configs[family]).eval()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                # Sizes at which heads matter: logits of some units, ablation effects of tenths.
                noise = torch.randn_like(parameter)
                if "norm" in name or "ln_" in name:
                    shift = 1.0 if name.endswith("weight") else 0.0
                    parameter.copy_(shift + 0.3 * noise)
                elif parameter.ndim == 1:
                    parameter.copy_(0.3 * noise)
                else:
                    parameter.copy_(0.25 * noise)
        words = {f"w{token}": token for token in range(1, VOCABULARY)}
        backend = Tokenizer(models.WordLevel({"<s>": 0, **words}, unk_token="<s>"))
        backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        tokenizer = hf.PreTrainedTokenizerFast(
            tokenizer_object=backend, bos_token="<s>", eos_token="<s>", unk_token="<s>"
        )
        folder = tmp_path_factory.mktemp(f"random-{family}")
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        folders[family] = folder
    return folders


@pytest.fixture(scope="session")
def tiny_entry(tiny_folders: dict[str, Path]) -> Callable[..., Any]:
    """Make the registry entry of a family's tiny model; keywords replace fields."""
    from tinyablation.models.registry import ModelEntry

    def make(family: str, **fields: Any) -> ModelEntry:
        plain = {
            "id": f"random-{family}",
            "title": f"Random {family}",
            "source": tiny_folders[family],
            "family": family,
            "variant": "plain",
            "bos": True,
        }
        return ModelEntry.model_validate({**plain, **fields})

    return make


@pytest.fixture(scope="session")
def tiny_models(tiny_entry: Callable[..., Any]) -> dict[str, Any]:
    """The four tiny models, loaded in float32."""
    from tinyablation.models.loading import load_model

    return {family: load_model(tiny_entry(family)) for family in FAMILIES}


@pytest.fixture(scope="session")
def engines(tiny_models: dict[str, Any]) -> dict[str, Any]:
    """The engine over each of the four tiny models."""
    from tinyablation.engine.engine import Engine

    return {family: Engine(model) for family, model in tiny_models.items()}


@pytest.fixture(scope="session")
def bridges(tiny_entry: Callable[..., Any]) -> dict[tuple[str, bool], Any]:
    """TransformerBridges by (family, whether weights are folded), around models of their own."""
    from tests.bridging import bridge_of
    from tinyablation.models.loading import load_model

    found = {}
    for family in FAMILIES:
        for folded in (False, True):
            bridge = bridge_of(load_model(tiny_entry(family)))
            if folded:
                bridge.enable_compatibility_mode()
            found[family, folded] = bridge
    return found
