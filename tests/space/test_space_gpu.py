"""On ZeroGPU the model runs in another process: what goes there and comes back survives it."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent

# As the Hub's package does it: arguments and results are pickled, and the function runs in a fork.
SPACES = """
import multiprocessing, os, pickle

def GPU(function):
    def borrowed(*arguments):
        receiving, sending = multiprocessing.get_context("fork").Pipe(duplex=False)
        packed = pickle.dumps(arguments)
        if (child := os.fork()) == 0:
            sending.send_bytes(pickle.dumps((os.getpid(), function(*pickle.loads(packed)))))
            os._exit(0)
        where, result = pickle.loads(receiving.recv_bytes())
        os.waitpid(child, 0)
        print("borrowed", where != os.getpid())
        return result
    return borrowed
"""

PROGRAM = """
import json, sys
from pathlib import Path
import numpy as np
from plume_embed.encode.encoder import DRAWINGS_MODEL, Encoder
from space import gpu
from space.content.corpora import Corpus, read_specs
from space.content.sessions import Session
from space.service import Query, Service
from space.settings import Settings
from space.trace import finish
import torch
torch.set_num_threads(1)

folder = Path(sys.argv[1])
spec = next(spec for spec in read_specs() if spec.id == "drawings")
corpus = Corpus(spec, Encoder(DRAWINGS_MODEL, device="cpu"), folder)
corpus.collection.sources = {source: name for source, name in corpus.collection.sources.items() if name == "films"}
corpus.collection.build()
service, session = Service(Settings(data=folder), [corpus], folder / "uploads"), Session()
result = finish(service.query(session, Query(corpus, "penguin", None, None, 3)))
expected = corpus.encoder.encode([{"text": "penguin"}], num_latent_steps=3)[0]
variants = [variant.name for variant, _, _ in service.compare(session)]
print(json.dumps({
    "zero": gpu.IS_ZERO, "difference": float(np.abs(result.trace.embedding - expected).max()), "variants": variants,
    "timed": len(service.timed(result).step_ms), "tampered": len(service.interventions(result)),
}))
"""


def test_every_use_of_the_model_works_on_a_borrowed_gpu(tmp_path):
    (tmp_path / "spaces.py").write_text(SPACES)
    (tmp_path / "program.py").write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "program.py"), str(tmp_path / "data")],
        env={"PYTHONPATH": f"{ROOT}:{tmp_path}", "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    *borrowed, found = done.stdout.strip().splitlines()
    assert set(borrowed) == {"borrowed True"} and len(borrowed) >= 5
    found = json.loads(found)
    assert found["zero"] and found["difference"] < 1e-5
    assert found["variants"] == ["Single pass", "Latent, K = 3", "Explicit rationale"]
    assert (found["timed"], found["tampered"]) == (3, 3)
