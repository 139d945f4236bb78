"""Post a workflow in API form to a running ComfyUI, wait for it, and print what it made.

python examples/run.py examples/api/inspect_an_adapter.json [http://127.0.0.1:8188]
"""

import json
import sys
import time
import urllib.error
import urllib.request

server = sys.argv[2] if len(sys.argv) > 2 else "http://127.0.0.1:8188"
with open(sys.argv[1], encoding="utf-8") as file:
    body = json.dumps({"prompt": json.load(file)}).encode()
try:
    with urllib.request.urlopen(f"{server}/prompt", body) as answer:
        prompt = json.load(answer)["prompt_id"]
except urllib.error.HTTPError as error:
    sys.exit(error.read().decode())  # what ComfyUI says about a node or a value that it refuses
while not (history := json.load(urllib.request.urlopen(f"{server}/history/{prompt}"))):
    time.sleep(0.5)
for kind, message in history[prompt]["status"]["messages"]:
    if kind in ("execution_error", "execution_interrupted"):
        sys.exit(message.get("exception_message", "interrupted"))
for node, output in history[prompt]["outputs"].items():
    print(node, *output.get("text", []), *(image["filename"] for image in output.get("images", [])), sep="\n  ")
