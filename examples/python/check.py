"""Checks both examples: the same tokens are kept, and the same answer comes out, as in Secateur's own model.

    python check.py SECATEUR FOLDER     # the binary, and the folder of the tiny checkpoint and its images
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy
from safetensors.numpy import load_file

HERE = Path(__file__).parent
QUESTION = "Is there a boat?"


def run(*command):
    return subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True).stdout


def main(secateur, folder):
    folder = Path(folder)
    model = folder / "llava-1.5-tiny-hf"
    for image in sorted((folder / "images").iterdir())[:3]:
        with tempfile.TemporaryDirectory() as out:
            ours, theirs, keep, tokens = (Path(out) / name for name in ("ours", "theirs", "keep.json", "tokens"))
            run(sys.executable, HERE / "export_cues.py", model, image, QUESTION, theirs)
            for method in ("fastervlm", "divprune", "vispruner"):
                flags = ("--method", method, "--tokens", "64")
                trace = run(secateur, "trace", "--model", model, "--image", image, "--question", QUESTION, *flags, "--cues", ours)
                trace = json.loads(trace)
                cues = load_file(theirs)
                for name, own in load_file(ours).items():
                    assert own.shape == cues[name].shape, (name, own.shape, cues[name].shape)
                    numpy.testing.assert_allclose(cues[name], own, rtol=1e-3, atol=1e-4, err_msg=name)
                keep.write_text(run(secateur, "prune", theirs, *flags, "--out", tokens))
                assert json.loads(keep.read_text())["kept"] == trace["kept"], (image, method)
                for more in ((tokens,), ()):
                    answer = json.loads(run(sys.executable, HERE / "apply_keep.py", model, image, QUESTION, keep, *more))
                    assert answer["output_ids"] == trace["output_ids"], (image, method, answer, trace["text"])
    print("cues, kept tokens and answers are equal")


if __name__ == "__main__":
    main(*sys.argv[1:3])
