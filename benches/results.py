#!/usr/bin/env python3
"""Writes the tables beside PyTorch in RESULTS.md from the runs in `runs/`, as `compare.py --json` writes them.

    python3 benches/results.py          # writes them anew
    python3 benches/results.py --check  # says whether they are those of the runs, for CI
"""

import json
import pathlib
import sys

HERE = pathlib.Path(__file__).parent
START, END = "<!-- tables of benches/results.py: start -->", "<!-- tables of benches/results.py: end -->"
BUDGETS = [576, 64, 29]
STAGES = ["vision", "projector", "prefill", "first token", "a token after it"]


def table(heads, rows):
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def read(run):
    """The stages of a run by tokens and name, each with Secateur's time and that of the better one of PyTorch's attentions."""
    return {(row["tokens"], row["stage"]): (row["secateur_ms"], min(row["eager_ms"], row["sdpa_ms"])) for row in run["stages"]}


def ratio(pair):
    return f"{pair[0] / pair[1]:.2f}"


def glance(runs):
    heads = ["processor", "weights, layers", "576", "64", "29", "sooner: 64", "29", "÷ PyTorch: prefill of 576", "64", "29", "tower", "a token"]
    rows = []
    for run in runs:
        stages = read(run)
        first = [stages[budget, "first token"][0] for budget in BUDGETS]
        # The head and the tower weigh too much in a few layers: how much sooner the whole model answers is not in such a run.
        sooner = [f"{first[0] / time:.1f}×" if run["layers"] >= 32 else "" for time in first[1:]]
        ratios = [ratio(stages[budget, "prefill"]) for budget in BUDGETS] + [ratio(stages[576, "vision"]), ratio(stages[576, "a token after it"])]
        rows.append([run["processor"], f"{run['dtype']}, {run['layers']}", *(f"{time / 1e3:.2f}" for time in first), *sooner, *ratios])
    return table(heads, rows)


def section(run):
    """The stages of a whole model; runs of a few layers have their row in the first table."""
    stages = read(run)
    heads = ["stage"] + [head for budget in BUDGETS for head in (f"{budget}: Secateur", "PyTorch", "ratio")]
    rows = [[stage] + [cell for budget in BUDGETS for ours, theirs in [stages[budget, stage]]
                       for cell in (f"{ours:,}", f"{theirs:,}", ratio((ours, theirs)))] for stage in STAGES]
    return (f"### {run['processor']}: {run['dtype']}, {run['layers']} layers, {run['date']}\n\n"
            f"Medians of {run['repeats']} in ms; torch {run['torch']}, transformers {run['transformers']}, {run['threads']} threads.\n\n" + table(heads, rows))


def main():
    page = HERE / "RESULTS.md"
    text = page.read_text()
    runs = [json.loads(path.read_text()) for path in sorted((HERE / "runs").glob("*.json"), reverse=True)]
    before, rest = text.split(START)
    after = rest.split(END)[1]
    written = before + START + "\n\n" + "\n".join([glance(runs), *(section(run) for run in runs if run["layers"] >= 32)]) + "\n" + END + after
    if "--check" in sys.argv:
        if written != text:
            sys.exit("benches/RESULTS.md is not what benches/runs give; run: python3 benches/results.py")
    else:
        page.write_text(written)


if __name__ == "__main__":
    main()
