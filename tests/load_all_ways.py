"""Run by test_loading.py in a fresh process: loads a model in every way and writes what it saw to report.json."""

import json
import random
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

torch.set_num_threads(1)


def cosine(first: np.ndarray, second: np.ndarray) -> float:
    return float((np.asarray(first) * np.asarray(second)).sum(axis=1).min())


def main(folder: str, work: Path) -> None:
    from sentence_transformers import SentenceTransformer
    from transformers import AutoConfig, AutoModel, AutoProcessor

    report: dict = {"without_trust": {}, "lowest_cosine": {}, "claims": {}}
    for name, load in (("AutoModel", AutoModel.from_pretrained), ("SentenceTransformer", SentenceTransformer)):
        try:
            load(folder, trust_remote_code=False)
            report["without_trust"][name] = "loaded"
        except Exception as error:
            report["without_trust"][name] = str(error)

    config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
    model, info = AutoModel.from_pretrained(folder, trust_remote_code=True, output_loading_info=True)
    processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
    problems = ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs")
    report["loading_problems"] = [f"{key}: {sorted(map(str, info[key]))}" for key in problems if info[key]]
    report["nan_parameters"] = [n for n, t in tensors(model) if not torch.isfinite(t).all()]
    report["remote_module"] = type(model).__module__
    on_meta = AutoModel.from_pretrained(folder, trust_remote_code=True, device_map="cpu", low_cpu_mem_usage=True)
    report["nan_after_meta_device"] = [n for n, t in tensors(on_meta) if not torch.isfinite(t.float()).all()]

    pixels = np.random.default_rng(0)
    picture = Image.fromarray(pixels.integers(0, 256, (60, 80, 3), dtype=np.uint8))
    frames = [picture.rotate(20 * turn) for turn in range(4)]
    picture.save(work / "picture.png")
    chat = [{"role": "user", "content": [{"type": "text", "text": "hello"}, {"type": "image", "image": picture}]}]
    items = [
        "a cat on a mat",
        picture,
        {"text": "hi", "image": picture},
        {"image": [picture, picture], "text": "two"},
        {"text": "v", "video": frames},
        {"video": frames},
        chat,
        {"image": str(work / "picture.png")},
        np.asarray(picture),
        np.stack([np.asarray(frame) for frame in frames]),
        {"text": ""},
    ]
    with torch.inference_mode():
        ours = model.eval()(**processor(items)).embeddings.numpy()
        four = model(**processor(items), num_latent_steps=4).embeddings.numpy()
        of_documents = model(**processor(items), num_latent_steps=config.document_latent_steps).embeddings.numpy()

    sentence = SentenceTransformer(folder, trust_remote_code=True, device="cpu")
    same = report["lowest_cosine"]
    same["sentence_transformer"] = cosine(ours, sentence.encode(items))
    same["encode_one_by_one"] = cosine(ours, np.concatenate([sentence.encode([item]) for item in items]))
    order = random.Random(0).sample(range(len(items)), len(items))
    shuffled = sentence.encode([items[i] for i in order], batch_size=3)
    same["encode_shuffled"] = cosine(ours[order], shuffled)

    claims = report["claims"]
    with_four = sentence.encode(items, num_latent_steps=4)
    claims["num_latent_steps_reach_the_model"] = cosine(four, with_four) >= 0.99999 and cosine(ours, with_four) < 0.999
    text, other = sentence.encode(["query: a cat", "a cat"])
    prefixed = sentence.encode("a cat", prompt="query: ")
    claims["prompt_is_a_text_prefix"] = bool(np.allclose(text, prefixed, atol=1e-6) and not np.allclose(text, other))
    claims["queries_and_documents"] = bool(
        np.allclose(sentence.encode_query("a cat"), other, atol=1e-6)
        and np.allclose(sentence.encode_document([picture]), of_documents[1], atol=1e-6)
    )
    cut = sentence.encode(items, truncate_dim=16)
    claims["truncate_dim"] = cut.shape == (len(items), 16) and bool(np.allclose(cut, ours[:, :16], atol=1e-6))
    claims["int8_precision"] = str(sentence.encode(items, precision="int8").dtype) == "int8"
    claims["binary_precision"] = sentence.encode(items, precision="ubinary").shape == (len(items), ours.shape[1] // 8)
    claims["normalised"] = bool(np.allclose(np.linalg.norm(ours, axis=1), 1, atol=1e-6))
    claims["dimension"] = sentence.get_embedding_dimension() == config.hidden_size == ours.shape[1]
    similarity = sentence.similarity(torch.from_numpy(ours), torch.from_numpy(ours)).numpy()
    claims["similarity"] = bool(np.allclose(similarity, ours @ ours.T, atol=1e-5))
    claims["picture_path"] = bool(np.allclose(sentence.encode(str(work / "picture.png")), ours[1], atol=1e-6))
    forced = sentence.encode({"text": str(work / "picture.png")})
    claims["forced_text"] = not np.allclose(forced, ours[1], atol=1e-2)

    model.save_pretrained(work / "model")
    processor.save_pretrained(work / "model")
    sentence.save_pretrained(str(work / "sentence"))
    for name, saved in (("saved_model", work / "model"), ("saved_sentence_transformer", work / "sentence")):
        again = SentenceTransformer(str(saved), trust_remote_code=True, device="cpu")
        same[name] = cosine(ours, again.encode(items))

    from plume_embed import PlumeModel, PlumeProcessor  # registers the Auto classes

    package = AutoModel.from_pretrained(folder).eval()  # no trust needed: the package has registered its classes
    package_processor = AutoProcessor.from_pretrained(folder)
    report["package_module"] = type(package).__module__
    assert type(package) is PlumeModel
    with torch.inference_mode():
        same["package"] = cosine(ours, package(**package_processor(items)).embeddings.numpy())
        package.save_pretrained(work / "package")
        package_processor.save_pretrained(work / "package")
        again = PlumeModel.from_pretrained(work / "package").eval()
        batch = PlumeProcessor.from_pretrained(work / "package")(items)
        same["saved_package"] = cosine(ours, again(**batch).embeddings.numpy())
    (work / "report.json").write_text(json.dumps(report, indent=1))


def tensors(model):
    yield from model.named_parameters()
    yield from model.named_buffers()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
