"""Holds a daemon against its own OpenAPI document.

Usage: openapi.py URL TOKEN DIRECTORY EXAMPLES [PATH...]

Each PATH is asked for, and its answer must have the schema that the document gives it; then
schemathesis asks whatever the document lets it, and more. `told.json` in the directory has what
webhooks were sent, each as [EVENT, BODY], which is held against the document, too. EXAMPLES is a JSON object: what stands
for the parameters of paths, by operation and name (`getMessage.id`) or by name alone.

In the copy of the document that is held against the answers no object may have a field that is
not told of, and no status may come that is not. Streams have no end and are left out of it;
waits are short.
"""

import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path

from jsonschema_rs import Draft202012Validator

url, token, directory, examples, *asked = sys.argv[1:]
examples = json.loads(examples)


def get(path):
    request = urllib.request.Request(url + path, headers={"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return answer.headers.get_content_type(), answer.read()


def closed(document):
    """The document as it is held against the answers."""
    for schema in document["components"]["schemas"].values():
        schema["additionalProperties"] = False
    for methods in document["paths"].values():
        for operation in methods.values():
            del operation["responses"]["default"]
            for answer in operation["responses"].values():
                answer.get("content", {}).pop("text/event-stream", None)
            for parameter in operation["parameters"]:
                bounded(operation["operationId"], parameter)
    return document


def bounded(operation, parameter):
    """Asks for what is there, and waits for nothing."""
    name = parameter["name"]
    if parameter["in"] == "path":
        parameter["example"] = examples.get(f"{operation}.{name}") or examples[name]
    elif name == "timeout":
        parameter["required"] = True
        parameter["schema"]["maximum"] = 1
    elif name == "seen":
        # Whoever has seen nothing does not wait, not even without a timeout.
        parameter["schema"]["maximum"] = 0


def told(document, path):
    """What the document says of the answer to a GET of this path, by media type."""
    path = path.split("?")[0]
    parts = path.split("/")

    def fits(names):
        return len(names) == len(parts) and all(
            name == part or name.startswith("{") for name, part in zip(names, parts)
        )

    paths = [one for one, methods in document["paths"].items() if "get" in methods]
    fitting = [one for one in paths if fits(one.split("/"))]
    # Without a parameter it fits better.
    best = path if path in fitting else fitting[0]
    content = document["paths"][best]["get"]["responses"]["200"]["content"]
    return {kind.split(";")[0]: form["schema"] for kind, form in content.items()}


def wrong_with(document, path):
    kind, body = get(path)
    schemas = told(document, path)
    if kind not in schemas:
        return [f"{path}: {kind} is not one of {list(schemas)}"]
    if kind != "application/json":
        return []
    schema = dict(schemas[kind], components=document["components"])
    errors = Draft202012Validator(schema, validate_formats=True).iter_errors(json.loads(body))
    return [f"{path}: {error.instance_path}: {error.message[:300]}" for error in errors]


def wrong_with_told(document, event, body):
    """What the document says of a webhook that was sent."""
    content = document["webhooks"][event]["post"]["requestBody"]["content"]
    schema = dict(content["application/json"]["schema"], components=document["components"])
    errors = Draft202012Validator(schema, validate_formats=True).iter_errors(body)
    return [f"{event}: {error.instance_path}: {error.message[:300]}" for error in errors]


document = closed(json.loads(get("/v1/openapi.json")[1]))
file = Path(directory, "openapi.json")
file.write_text(json.dumps(document))
wrong = [what for path in asked for what in wrong_with(document, path)]
for event, body in json.loads(Path(directory, "told.json").read_text()):
    wrong += wrong_with_told(document, event, body)
if wrong:
    raise SystemExit("\n".join(wrong))

checks = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    # What the document forbids is refused.
    "negative_data_rejection",
]
ended = subprocess.run(
    [
        str(Path(sys.executable).with_name("schemathesis")),
        *("run", str(file), "--url", url, "--header", f"Authorization: Bearer {token}"),
        *("--checks", ",".join(checks), "--phases", "examples,coverage,fuzzing"),
        # The same questions in every run, and few of them.
        *("--seed", "1", "--max-examples", "4", "--generation-database", "none"),
        *("--request-timeout", "30", "--continue-on-failure", "--no-shrink"),
        *("--warnings", "off", "--no-color"),
    ],
    cwd=directory,
    env=os.environ | {
        "SCHEMATHESIS_HOOKS": "openapi_hooks",
        "PYTHONPATH": str(Path(__file__).parent),
        # The folder of the tests stays as it is.
        "PYTHONDONTWRITEBYTECODE": "1",
    },
    timeout=300,
)
raise SystemExit(ended.returncode)
