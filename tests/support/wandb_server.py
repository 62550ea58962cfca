"""A stand-in for W&B's server on the loopback: answers just enough for runs to go online, then misbehaves as told.

What it can be told: "well"; "500"; "hang", which takes a request and never answers; "gone", where nothing listens.
"""

import base64
import contextlib
import hashlib
import http.server
import json
import re
import threading
import urllib.parse


class Server:
    """Listens on a free port of 127.0.0.1; a context manager.

    Attributes:
      url: its address.
      operations: names of the GraphQL operations asked for, in order.
      lines: what arrived in the history of each run: run id -> points.
      artifacts: what can be fetched: name -> anything with "metadata" and "files" (name -> content).
    """

    def __init__(self, behaviour="well"):
        self.behaviour = "well"
        self.operations, self.lines, self.artifacts = [], {}, {}
        self.asked = threading.Condition()
        self.released = threading.Event()
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()
        self.become(behaviour)

    def become(self, behaviour):
        self.behaviour = behaviour
        if behaviour == "gone":
            self._server.shutdown()
            self._server.server_close()

    def wait_for(self, operation, times=1):
        """Until an operation was asked for so many times; whether that came about within half a minute."""
        with self.asked:
            return self.asked.wait_for(lambda: self.operations.count(operation) >= times, timeout=30)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.released.set()
        if self.behaviour != "gone":
            self.become("gone")


def _handler(server):
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def handle(self):
            with contextlib.suppress(OSError):
                super().handle()

        def answered(self):
            content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if server.behaviour == "hang":
                server.released.wait()
            if server.behaviour in ("hang", "gone"):
                self.close_connection = True
                return
            status = 500 if server.behaviour == "500" else 200
            reply = answer(server, self.path, content) if status == 200 else {}
            reply = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply)

        do_GET = do_POST = do_PUT = answered  # noqa: N815 - the names http.server asks for

    return Handler


def answer(server, path, content):
    """The reply to a request that is answered well: plain data, or bytes."""
    if path.startswith("/artifact/"):
        return served(server, *map(urllib.parse.unquote, path.split("/")[2:]))
    if path.endswith("/file_stream"):
        run = path.split("/")[-2]
        files = json.loads(content).get("files") or {}
        lines = files.get("wandb-history.jsonl", {}).get("content", [])
        server.lines.setdefault(run, []).extend(json.loads(line) for line in lines)
    if path != "/graphql":
        return {}
    asked = json.loads(content)
    name = re.match(r"\s*(?:query|mutation)\s+(\w+)", asked["query"])[1]
    with server.asked:
        server.operations.append(name)
        server.asked.notify_all()
    reply = _GRAPHQL.get(name, lambda server, variables: {})
    return {"data": reply(server, asked.get("variables") or {})}


def served(server, artifact, file=None):
    """A file of an artifact, or what lists them all."""
    files = server.artifacts[artifact].files
    if file is not None:
        return files[file]
    digests = {name: base64.b64encode(hashlib.md5(content).digest()).decode() for name, content in files.items()}
    contents = {name: {"digest": digest, "size": len(files[name])} for name, digest in digests.items()}
    policy = {"storagePolicy": "wandb-storage-policy-v1", "storagePolicyConfig": {"storageLayout": "V2"}}
    return {"version": 1, **policy, "contents": contents}


def _viewer(server, variables):
    return {"viewer": {"id": "1", "entity": "us", "username": "us", "email": "", "flags": "{}", "teams": {"edges": []}}}


def _bucket(server, variables):
    names = {key: variables.get(key) for key in ("name", "displayName", "config")}
    project = {"id": "2", "name": variables["project"], "entity": {"id": "3", "name": "us"}}
    others = {"id": "4", "description": "", "sweepName": None, "historyLineCount": 0}
    return {"upsertBucket": {"inserted": True, "bucket": names | others | {"project": project}}}


def _uploads(server, variables):
    files = [{"name": name, "uploadUrl": f"{server.url}/upload/{name}"} for name in variables["files"]]
    return {"createRunFiles": {"runID": "4", "uploadHeaders": [], "files": files}}


def _created(server, variables):
    # Content that is there already, so that nothing is uploaded.
    made = {"id": "5", "state": "COMMITTED", "artifactSequence": {"latestArtifact": None}}
    return {"createArtifact": {"artifact": made}}


_PROJECT = {"id": "UHJvamVjdDoy", "internalId": "UHJvamVjdDoy", "name": "r3d-ablations", "entity": {"name": "us"}}
_DATES = {"createdAt": "2026-01-01T00:00:00Z", "updatedAt": None}


def _id(kind, name):
    return base64.b64encode(f"{kind}:{name}".encode()).decode()


def _artifact(name, metadata):
    empty = dict.fromkeys(("description", "historyStep", "commitHash"))
    ours = {"versionIndex": 0, "state": "COMMITTED", "tags": [], "aliases": []}
    sizes = {"size": 1, "fileCount": 1, "digest": "0", "digestAlgorithm": "MANIFEST_MD5"}
    return {
        "__typename": "Artifact",
        "id": _id("Artifact", name),
        "artifactSequence": {"__typename": "ArtifactSequence", "name": name, "project": _PROJECT},
        "artifactType": {"name": "run-record"},
        "metadata": json.dumps(metadata),
        "ttlDurationSeconds": -1,
        "ttlIsInherited": True,
        **(empty | ours | sizes | _DATES),
    }


def _membership(server, variables):
    name = variables["name"].partition(":")[0]
    collection = {"__typename": "ArtifactSequence", "name": name, "project": _PROJECT}
    member = {"__typename": "ArtifactCollectionMembership", "id": _id("Membership", name), "versionIndex": 0}
    artifact = _artifact(name, server.artifacts[name].metadata)
    member |= {"createdAt": _DATES["createdAt"], "aliases": [], "artifactCollection": collection, "artifact": artifact}
    return {"project": {"artifactCollectionMembership": member}}


def _kind(server, variables):
    kind = {"__typename": "ArtifactType", "id": _id("ArtifactType", 1), "name": "run-record", "description": None}
    return {"project": {"artifactType": kind | _DATES}}


def _page(nodes):
    last = {"__typename": "PageInfo", "endCursor": None, "hasNextPage": False}
    return {"totalCount": len(nodes), "pageInfo": last, "edges": [{"node": node} for node in nodes]}


def _collections(server, variables):
    about = {"description": None, "project": _PROJECT, "type": {"name": "run-record"}, "tags": {"edges": []}} | _DATES
    nodes = [
        {"__typename": "ArtifactSequence", "id": _id("ArtifactCollection", name), "name": name, **about}
        for name in server.artifacts
    ]
    return {"project": {"artifactType": {"artifactCollections": _page(nodes)}}}


def _manifest(server, variables):
    name = base64.b64decode(variables["id"]).decode().partition(":")[2]
    return {"artifact": {"currentManifest": {"file": {"directUrl": f"{server.url}/artifact/{name}"}}}}


def _addresses(server, variables):
    name = variables["collection"]
    addresses = {
        file: f"{server.url}/artifact/{name}/{urllib.parse.quote(file, '')}" for file in server.artifacts[name].files
    }
    nodes = [{"__typename": "File", "name": file, "directUrl": address} for file, address in addresses.items()]
    collection = {"__typename": "ArtifactSequence", "artifactMembership": {"files": _page(nodes)}}
    return {"project": {"artifactCollection": collection}}


_GRAPHQL = {
    "Viewer": _viewer,
    "GetDefaultEntity": lambda server, variables: {"viewer": {"id": _id("User", 1), "entity": "us"}},
    "ServerFeaturesQuery": lambda server, variables: {"serverInfo": {"features": []}},
    # A run that goes online:
    "RunResumeStatus": lambda server, variables: {"model": None},
    "UpsertBucket": _bucket,
    "CreateRunFiles": _uploads,
    "ArtifactType": lambda server, variables: {"project": {"artifact": None}},
    "CreateArtifact": _created,
    "ArtifactByID": lambda server, variables: {"artifact": _artifact("made", {})},
    # Artifacts that are fetched:
    "ProjectArtifactType": _kind,
    "ArtifactTypeArtifactCollections": _collections,
    "ArtifactMembershipByName": _membership,
    "FetchArtifactManifest": _manifest,
    "GetArtifactMembershipFileUrls": _addresses,
}
