#!/usr/bin/env python3
"""Many clients of one server: nothing lost, nothing wrong, and how much more is answered than one request after another.

usage: serve.py SECATEUR [--clients 64] [--requests 2000] [--minutes M]

Requests of mixed sizes go to the built-in checkpoint. First each of them is asked alone: its answer is the right one. Then one client asks
them one after another, and then all clients at once. Every answer must be the right one. `--minutes` goes on asking, and prints the
memory of the server minute by minute.
"""

import argparse
import base64
import json
import random
import re
import socket
import statistics
import subprocess
import threading
import time
import urllib.request

METHODS = [("none", None), ("fastervlm", 64), ("cdpruner", 64), ("divprune", 29), ("visionzip", 128), ("fastv", 64), ("fastervlm", "5%")]

CONTENT = re.compile(rb'"content":"((?:[^"\\\\]|\\\\.)*)"')


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("secateur")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--minutes", type=float, default=0)
    args = parser.parse_args()
    command = [args.secateur, "serve", "--port", "0", "--batch-size", "32", "--queue", "64"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    host = server.stdout.readline().strip().removeprefix("http://")
    wait(host)
    requests = mixed(host)
    right = [ask(host, request)[1] for request in requests]
    order = [random.Random(0).randrange(len(requests)) for _ in range(args.requests)]

    alone = order[: max(args.requests // 5, 1)]
    began = time.perf_counter()
    failed = sum(ask(host, requests[i])[1] != right[i] for i in alone)
    one = len(alone) / (time.perf_counter() - began)
    print(f"one after another: {len(alone)} requests, {failed} wrong, {one:.1f} a second")

    many, firsts, wrong, lost, refused = together(host, requests, right, order, args.clients)
    firsts.sort()
    print(f"{args.clients} clients: {len(order)} requests, {lost} lost, {wrong} wrong, {refused} asked again after 429, {many:.1f} a second")
    print(f"throughput: {many / one:.2f} times that of one after another")
    print(f"first token: median {statistics.median(firsts):.3f} s, p99 {firsts[int(len(firsts) * 0.99) - 1]:.3f} s")
    end = time.time() + 60 * args.minutes
    while time.time() < end:
        began = time.time()
        total = 0
        while time.time() < min(began + 60, end):
            _, _, wrong, lost, _ = together(host, requests, right, order[:500], args.clients)
            assert (wrong, lost) == (0, 0), (wrong, lost)
            total += 500
        print(f"{total} more requests, {resident(server.pid)} MB", flush=True)
    server.terminate()
    assert server.wait(60) == 0


def wait(host):
    while True:
        try:
            return urllib.request.urlopen(f"http://{host}/health")
        except OSError:
            time.sleep(0.05)


def mixed(host):
    """Requests about four images, one or two in each, with all kinds of budgets, from a word to a sentence."""
    samples = json.load(urllib.request.urlopen(f"http://{host}/samples"))
    urls = []
    for sample in samples:
        image = urllib.request.urlopen(f"http://{host}{sample['image']}").read()
        urls.append("data:image/png;base64," + base64.b64encode(image).decode())
    requests = []
    for i, sample in enumerate(samples):
        for j, question in enumerate(sample["questions"]):
            for method, tokens in METHODS:
                images = [urls[i]] if (i + j) % 3 else [urls[i], urls[(i + 1) % len(urls)]]
                pruning = {"method": method} if tokens is None else {"method": method, "visual_tokens": tokens}
                parts = [{"type": "image_url", "image_url": {"url": url}} for url in images]
                message = {"role": "user", "content": [*parts, {"type": "text", "text": question}]}
                body = json.dumps({"messages": [message], "secateur": pruning, "stream": True})
                head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
                head += f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
                requests.append((head + body).encode())
    return requests


def ask(host, request):
    """The time to the first token, and the text, of a request; None for a text that did not come."""
    name, port = host.split(":")
    began = time.perf_counter()
    first, answer = None, b""
    # By hand: a client's library takes longer than the server does.
    with socket.create_connection((name, int(port)), timeout=300) as connection:
        connection.sendall(request)
        while part := connection.recv(1 << 16):
            answer += part
            if first is None and answer.count(b"\ndata: ") > 1:
                first = time.perf_counter() - began
    if answer.startswith(b"HTTP/1.1 429"):
        return 429, None
    text = "".join(json.loads(b'"' + new + b'"') for new in CONTENT.findall(answer))
    return first or time.perf_counter() - began, text if b"data: [DONE]" in answer else None


def together(host, requests, right, order, clients):
    left, lock = list(order), threading.Lock()
    firsts, counts = [], {"wrong": 0, "lost": 0, "refused": 0}

    def client():
        while True:
            with lock:
                if not left:
                    return
                i = left.pop()
            try:
                first, text = ask(host, requests[i])
                while first == 429:
                    counts["refused"] += 1
                    time.sleep(0.1)
                    first, text = ask(host, requests[i])
            except OSError:
                first, text = 0, None
            with lock:
                firsts.append(first)
                counts["lost"] += text is None
                counts["wrong"] += text is not None and text != right[i]

    threads = [threading.Thread(target=client) for _ in range(clients)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(order) / (time.perf_counter() - began), firsts, counts["wrong"], counts["lost"], counts["refused"]


def resident(pid):
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) // 1024 for line in status if line.startswith("VmRSS"))


if __name__ == "__main__":
    main()
