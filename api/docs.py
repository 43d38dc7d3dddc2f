"""The documentation page: one HTML file, made from the OpenAPI document, nothing from outside."""

from __future__ import annotations

import html
import json
from typing import Any

_STYLE = """
:root{color-scheme:light dark;--line:#8884;--soft:#8881;--accent:#2563eb}
body{font:16px/1.5 system-ui,sans-serif;margin:0 auto;max-width:60rem;padding:1.5rem}
h1{margin:.2em 0}nav a{margin-right:1rem}a{color:var(--accent)}
article{border:1px solid var(--line);border-radius:.5rem;margin:1rem 0;padding:.75rem 1rem}
h3{margin:0;font:600 1rem ui-monospace,monospace}h3 b{color:var(--accent)}
code,pre{font:.85rem/1.45 ui-monospace,monospace}
pre{background:var(--soft);border-radius:.4rem;overflow:auto;padding:.6rem}
table{border-collapse:collapse;width:100%}td,th{border-top:1px solid var(--line);
padding:.25rem .5rem;text-align:left;vertical-align:top}
summary{cursor:pointer}.scope{float:right;opacity:.7}
"""


def page(document: dict[str, Any]) -> str:
    """The page for an OpenAPI document."""
    sections: dict[str, list[str]] = {}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            tag = operation["tags"][0]
            sections.setdefault(tag, []).append(_operation(document, path, method, operation))
    links = " ".join(f'<a href="#{tag}">{tag}</a>' for tag in [*sections, "socket"])
    body = "".join(
        f'<section id="{tag}"><h2>{tag}</h2>{"".join(parts)}</section>'
        for tag, parts in sections.items()
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>Switchboard API</title><style>{_STYLE}</style></head><body>"
        f"<h1>Switchboard API</h1><p>Version {html.escape(document['info']['version'])}. "
        'The same as <a href="/openapi.json">OpenAPI</a>. Send a token as '
        "<code>Authorization: Bearer TOKEN</code> or <code>X-API-Key: TOKEN</code>.</p>"
        f"<nav>{links}</nav>{body}{_STREAMS}</body></html>"
    )


_STREAMS = """
<section id="socket"><h2>socket</h2><article><h3><b>GET</b> /ws</h3>
<p>A WebSocket. First a <code>hello</code> frame with the log's epoch and a resume token, then
every event as it is committed, and a <code>heartbeat</code> every 30 s. A browser gives its token
as <code>?api_key=TOKEN</code>.</p><table>
<tr><th>query</th><th>meaning</th></tr>
<tr><td><code>since=EPOCH:SEQ</code></td><td>replay what came after that token, then go on live; a
<code>gap</code> frame comes first when some of it is not kept any more</td></tr>
<tr><td><code>topics=A,B</code></td><td>only these: a subject (<code>gateway/gw01</code>), an event
type (<code>gateway.started</code>), or a kind (<code>gateway</code>)</td></tr>
<tr><td><code>batch=1</code></td><td>many events in one frame when there are many</td></tr></table>
<p>Commands go the other way:
<code>{"id":1,"method":"GET","path":"/gateway/status?gw_id=gw01"}</code> is answered
<code>{"id":1,"status":200,"body":{…}}</code>. Many may be under way at
once.</p></article></section>
"""


def _operation(document: dict[str, Any], path: str, method: str, operation: dict[str, Any]) -> str:
    scope = operation.get("x-scope")
    parameters = "".join(
        f"<tr><td><code>{html.escape(p['name'])}</code></td><td>{p['in']}"
        f"{', required' if p['required'] else ''}</td>"
        f"<td><code>{_short(p['schema'])}</code></td></tr>"
        for p in operation["parameters"]
    )
    answers = "".join(
        f"<tr><td><code>{status}</code></td><td>{html.escape(answer['description'])}</td></tr>"
        for status, answer in operation["responses"].items()
    )
    request = operation.get("requestBody")
    return (
        f'<article id="{operation["operationId"]}">'
        f'<span class="scope">{html.escape(scope) if scope else "open"}</span>'
        f"<h3><b>{method.upper()}</b> {html.escape(path)}</h3>"
        f"<p>{html.escape(operation['summary'])}</p>"
        + (f"<table>{parameters}</table>" if parameters else "")
        + (_schema(document, "Body", request["content"]) if request else "")
        + _schema(document, "Answer", operation["responses"]["200"]["content"])
        + f"<details><summary>Statuses</summary><table>{answers}</table></details></article>"
    )


def _schema(document: dict[str, Any], title: str, content: dict[str, Any]) -> str:
    kind, held = next(iter(content.items()))
    if kind != "application/json":
        return f"<p>Answers with <code>{kind}</code>.</p>"
    schema = _resolved(document, held["schema"], 0)
    text = html.escape(json.dumps(schema, indent=2, ensure_ascii=False))
    return f"<details><summary>{title}</summary><pre>{text}</pre></details>"


def _resolved(document: dict[str, Any], schema: Any, depth: int) -> Any:
    """References replaced by what they name, as deep as a reader can follow."""
    if isinstance(schema, list):
        return [_resolved(document, item, depth) for item in schema]
    if not isinstance(schema, dict):
        return schema
    reference = schema.get("$ref")
    if isinstance(reference, str):
        name = reference.rpartition("/")[2]
        if depth > 4:
            return {"…": name}
        return _resolved(document, document["components"]["schemas"][name], depth + 1)
    return {k: _resolved(document, v, depth) for k, v in schema.items()}


def _short(schema: dict[str, Any]) -> str:
    return html.escape(json.dumps(schema, ensure_ascii=False))
