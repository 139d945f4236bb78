"""Post a workflow in API form to a running ComfyUI, wait for it, and print what it made.

python examples/run.py examples/api/inspect_an_adapter.json [http://127.0.0.1:8188]

Needs nothing but Python. Exits with 1, and says why, if something is wrong with the workflow or fails while it runs.
"""

import argparse
import http.client
import json
import sys
import time
import urllib.error
import urllib.request


def main() -> None:
    """Run the workflow that the command line names."""
    usage, _, more = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(description=usage, epilog=more.partition("\n\n")[2])
    parser.add_argument("workflow", metavar="WORKFLOW.json", help="a workflow that was saved by File > Export (API)")
    parser.add_argument("server", nargs="?", default="http://127.0.0.1:8188", help="ComfyUI's address [%(default)s]")
    given = parser.parse_args()
    server = given.server.rstrip("/") if "://" in given.server else f"http://{given.server.rstrip('/')}"
    workflow = read(given.workflow)
    prompt = queue(server, workflow)
    try:
        done = wait(server, prompt)
    except KeyboardInterrupt:
        ask(server, "/interrupt", {"prompt_id": prompt})
        ask(server, "/queue", {"delete": [prompt]})
        sys.exit("stopped: ComfyUI is told to stop it too")
    report(done, workflow)


def read(path: str) -> dict:
    """The workflow in a file."""
    try:
        with open(path, encoding="utf-8-sig") as file:
            workflow = json.load(file)
    except OSError as error:
        sys.exit(f"{path}: cannot be read: {error.strerror}")
    except ValueError as error:
        sys.exit(f"{path}: is no JSON: {error}")
    if isinstance(workflow, dict) and isinstance(workflow.get("nodes"), list):
        sys.exit(
            f"{path}: is a graph as the page saves it, expected the API form: open it and choose File > Export (API)"
        )
    if not isinstance(workflow, dict) or not workflow or not all(map(is_node, workflow.values())):
        sys.exit(f"{path}: is no workflow in API form: expected nodes by their ids, each with a class_type and inputs")
    return workflow


def is_node(value: object) -> bool:
    """Whether it is a node in API form."""
    return isinstance(value, dict) and isinstance(value.get("class_type"), str)


def ask(server: str, path: str, body: object = None) -> dict:
    """ComfyUI's answer; a GET without a body."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(server + path, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read() or b"{}")
    except urllib.error.HTTPError as error:
        if path == "/prompt":  # whose answer says why
            raise
        sys.exit(f"{server}: answers {path} with {error.code} {error.reason}")
    except ValueError:
        sys.exit(f"{server}: something answers there, but it is no ComfyUI")
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        sys.exit(f"{server}: no ComfyUI answers there ({reason}): start it, or name its address after the workflow")


def queue(server: str, workflow: dict) -> str:
    """The id of the prompt that ComfyUI has taken."""
    try:
        return ask(server, "/prompt", {"prompt": workflow})["prompt_id"]
    except urllib.error.HTTPError as error:
        text = error.read().decode("utf-8", "replace")
    except KeyError:
        sys.exit(f"{server}: something answers there, but it is no ComfyUI")
    try:
        refused = json.loads(text)
        sys.exit("\n".join(refusal(refused, workflow)))
    except (ValueError, TypeError, AttributeError, KeyError):
        sys.exit(f"{server}: refuses the workflow: {text.strip()[:300]}")


def refusal(answer: dict, workflow: dict) -> list[str]:
    """What ComfyUI says of a workflow that it refuses, a line for each fault."""
    about = answer["error"]
    if not isinstance(about, dict):
        return [f"refused: {about}"]
    lines = [": ".join(["refused", *(text for text in (about.get("message"), about.get("details")) if text)])]
    for node, faults in (answer.get("node_errors") or {}).items():
        for fault in faults["errors"]:
            details = fault["details"]  # which may be a list of every file that there is
            details = details if len(details) < 300 else f"{details[:300]} …"
            lines.append(f"  {named(node, workflow)}: {fault['message']}: {details}".rstrip(": "))
    return lines


def named(node: str, workflow: dict) -> str:
    """A node as a person knows it."""
    entry = workflow.get(node, {})
    title = (entry.get("_meta") or {}).get("title") or entry.get("class_type", "?")
    return f"node {node} ({title})"


def wait(server: str, prompt: str) -> dict:
    """What ComfyUI keeps of the prompt once it is done."""
    while not (history := ask(server, f"/history/{prompt}")):
        time.sleep(0.5)
    return history[prompt]


def report(done: dict, workflow: dict) -> None:
    """Print what came of it."""
    for kind, message in done["status"]["messages"]:
        where = named(str(message.get("node_id", "?")), workflow)
        if kind == "execution_error":
            sys.exit(f"{where}: {message.get('exception_message', 'failed').strip()}")
        if kind == "execution_interrupted":
            sys.exit(f"{where}: was interrupted")
    for node, output in done["outputs"].items():
        files = [image["filename"] for image in output.get("images", [])]
        print(node, *output.get("text", []), *files, sep="\n  ")


if __name__ == "__main__":
    main()
