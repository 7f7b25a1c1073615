"""Real clients against a server of the built-in checkpoint: OpenAI's Python SDK, a validator of OpenAPI, and a browser.

usage: check.py SECATEUR [SCREENSHOT.png]
"""

import base64
import json
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import openai
from openapi_spec_validator import validate
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

KEY = "a-key-of-the-tests"


def start(binary, *flags):
    """A server on a free port, and its address."""
    server = subprocess.Popen([binary, "serve", "--port", "0", *flags], stdout=subprocess.PIPE, text=True)
    address = server.stdout.readline().strip()
    for _ in range(200):
        try:
            urllib.request.urlopen(address + "/health")
            return server, address
        except (urllib.error.HTTPError, ConnectionError):
            time.sleep(0.05)
    raise SystemExit("the server is not ready")


def stop(server):
    server.terminate()
    assert server.wait(timeout=40) == 0, server.returncode


def sample(address, number):
    with urllib.request.urlopen(f"{address}/samples/{number}.png") as response:
        return response.read()


def part(image):
    return {"type": "image_url", "image_url": {"url": "data:image/png;base64," + base64.b64encode(image).decode(), "detail": "high"}}


def sdk(binary):
    server, address = start(binary, "--tokens", "64", "--method", "fastervlm", "--api-key-file", key_file())
    client = openai.OpenAI(base_url=address + "/v1", api_key=KEY, max_retries=0)
    images = [sample(address, number) for number in (0, 1)]

    def ask(text="What color is the ring?", shown=images[:1], **more):
        content = [*map(part, shown), {"type": "text", "text": text}]
        return client.chat.completions.create(model="demo", messages=[{"role": "user", "content": content}], **more)

    assert [model.id for model in client.models.list()] == ["demo"]
    plain = ask()
    assert plain.choices[0].message.content == "Red" and plain.choices[0].finish_reason == "stop", plain
    assert plain.usage.prompt_tokens_details.image_tokens == 64, plain
    streamed = list(ask(stream=True, stream_options={"include_usage": True}))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in streamed if chunk.choices)
    assert text == "Red" and streamed[-1].usage.completion_tokens == plain.usage.completion_tokens, streamed
    two = ask("What is in the image?", images)
    assert two.usage.prompt_tokens_details.image_tokens == 128, two
    pruned = ask(extra_body={"secateur": {"method": "cdpruner", "visual_tokens": "5%", "kept": True}})
    assert pruned.secateur["method"] == "cdpruner" and len(pruned.secateur["kept"][0][0]) == 29, pruned
    scored = ask(logprobs=True, top_logprobs=3)
    token = scored.choices[0].logprobs.content[0]
    assert token.token == "Red" and len(token.top_logprobs) == 3 and token.logprob == token.top_logprobs[0].logprob
    try:
        ask(n=2)
        raise SystemExit("n = 2 was answered")
    except openai.BadRequestError as error:
        assert error.param == "n", error
    try:
        openai.OpenAI(base_url=address + "/v1", api_key="wrong", max_retries=0).models.list()
        raise SystemExit("a wrong key was let in")
    except openai.AuthenticationError:
        pass
    stop(server)


def full_queue(binary):
    """A client that gets 429 waits and tries again, as the SDK does by itself."""
    import threading

    server, address = start(binary, "--queue", "1", "--batch-size", "1")
    client = openai.OpenAI(base_url=address + "/v1", api_key="none", max_retries=20)
    raw = openai.OpenAI(base_url=address + "/v1", api_key="none", max_retries=0)
    image = sample(address, 0)
    message = [{"role": "user", "content": [part(image), {"type": "text", "text": "What is in the image?"}]}]
    answers, refused = [], []

    def patient():
        answers.append(client.chat.completions.create(model="", messages=message).choices[0].message.content)

    def hasty():
        try:
            raw.chat.completions.create(model="", messages=message)
        except openai.RateLimitError as error:
            refused.append(error.response.headers["retry-after"])

    threads = [threading.Thread(target=work) for work in [patient, hasty] * 12]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 12 and len(set(answers)) == 1, answers
    assert refused and set(refused) == {"1"}, refused
    stop(server)


def key_file():
    path = Path(tempfile.mkdtemp()) / "keys"
    path.write_text(f"# keys of the tests\n{KEY}\n")
    return str(path)


def browser():
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for flag in ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--window-size=1200,1000"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(options, webdriver.ChromeService("/usr/bin/chromedriver"))


def page(binary, screenshot):
    server, address = start(binary)
    driver = browser()
    wait = WebDriverWait(driver, 60)
    find = lambda what: driver.find_element(By.CSS_SELECTOR, what)
    done = lambda count: wait.until(
        lambda d: len(d.find_elements(By.CSS_SELECTOR, "article dl dd")) >= 3 * count and find("#status").text == "Done."
    )
    driver.get(address)
    wait.until(lambda d: len(d.find_elements(By.CSS_SELECTOR, "#samples img")) == 4 and d.find_elements(By.CSS_SELECTOR, "#methods input"))
    assert not find("#ask").is_enabled(), "there is nothing to ask about yet"
    find("#samples button").click()
    wait.until(lambda d: find("#ask").is_enabled())
    find("#question").clear()
    find("#question").send_keys("What color is the ring?")
    find("#methods input[value=cdpruner]").click()
    find("#heat").click()
    find("#ask").click()
    done(3)
    texts = {card.get_attribute("data-method"): card.find_element(By.CSS_SELECTOR, ".text").text for card in driver.find_elements(By.CSS_SELECTOR, "article")}
    assert texts == {"none": "Red", "fastervlm": "Red", "cdpruner": "Red"}, texts
    facts = find("article[data-method=cdpruner] dl").text
    assert "64 of 576" in facts and "as fast" in facts, facts
    assert len(driver.find_elements(By.CSS_SELECTOR, "article[data-method=fastervlm] img")) == 2, "kept patches and ranks"
    assert all(driver.execute_script("return [...document.images].map(image => image.naturalWidth > 0)"))
    if screenshot:
        driver.set_window_size(1200, 1080)
        driver.execute_script("scrollTo(0, 0)")
        driver.save_screenshot(screenshot)
    # The slider asks again by itself, from the keyboard.
    driver.execute_script("const s = document.getElementById('tokens'); s.value = 30; s.focus();")
    find("#tokens").send_keys(webdriver.Keys.ARROW_LEFT)
    wait.until(lambda d: find("#count").text == "29 of 576")
    wait.until(lambda d: "29 of 576" in find("#answers").text)
    done(3)
    # A pasted image takes the place of the chosen one; what is no image is refused in words.
    paste = """
        const [bytes, type] = arguments, data = new DataTransfer();
        data.items.add(new File([Uint8Array.from(atob(bytes), c => c.charCodeAt(0))], 'pasted', { type }));
        document.dispatchEvent(new ClipboardEvent('paste', { clipboardData: data, bubbles: true }));
    """
    before = find("#preview img").get_attribute("src")
    driver.execute_script(paste, base64.b64encode(sample(address, 2)).decode(), "image/png")
    wait.until(lambda d: find("#preview img").get_attribute("src") != before)
    driver.execute_script(paste, base64.b64encode(b"text").decode(), "text/plain")
    assert "This is no image" in find("#error").text
    # An image that the server cannot read is an error in its card.
    driver.execute_script(paste, base64.b64encode(b"\x89PNG\r\n\x1a\nbroken").decode(), "image/png")
    wait.until(lambda d: find("#error").text == "")
    time.sleep(0.5)
    find("#ask").click()
    wait.until(lambda d: d.find_elements(By.CSS_SELECTOR, "article .error"))
    assert "image" in find("article .error").text
    wait.until(lambda d: find("#status").text == "Done.")
    labels = driver.execute_script(
        "return [...document.querySelectorAll('input, textarea, button')].filter(e => !(e.labels && e.labels.length) && !e.getAttribute('aria-label') && !e.textContent.trim() && !e.querySelector('img[alt]')).length"
    )
    assert labels == 0, "controls without a name"
    driver.set_window_size(390, 800)
    assert driver.execute_script("return document.documentElement.scrollWidth <= innerWidth"), "it scrolls sideways on a phone"
    # The browser itself notes the status of the broken image's answers.
    log = [entry for entry in driver.get_log("browser") if not re.search(r"status of 422", entry["message"])]
    assert not log, log
    driver.quit()
    stop(server)


def description(binary):
    server, address = start(binary)
    with urllib.request.urlopen(address + "/openapi.json") as response:
        validate(json.load(response))
    stop(server)


if __name__ == "__main__":
    binary = sys.argv[1]
    for check in (sdk, full_queue, description):
        check(binary)
        print(check.__name__, "ok", flush=True)
    page(binary, sys.argv[2] if len(sys.argv) > 2 else None)
    print("page ok")
