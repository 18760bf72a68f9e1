"""The Hub's answers to what its client asks: the API, git's large files, the files themselves, its rules for cards."""

import base64
import hashlib
import json
import re
import time
from typing import Any
from urllib.parse import quote, unquote

import yaml

from loopback_state import Blob, LoopbackHub, RefusalError, Repository, is_large

Answer = tuple[bytes, dict[str, str], int]


class Api:
    """Answers one request; the server fills in what was asked."""

    hub: LoopbackHub
    command: str
    headers: Any
    query: dict[str, list[str]]
    body: bytes
    user: dict[str, Any] | None

    def route(self, path):
        if path.startswith("/large/"):
            return self._large(path.removeprefix("/large/"))
        self.user = self._authenticate()
        for pattern, method in ROUTES:
            found = re.fullmatch(pattern, f"{self.command} {path}")
            if found:
                with self.hub.lock:
                    result = getattr(self, method)(*(unquote(part or "") for part in found.groups()))
                if isinstance(result, tuple):
                    return result
                return json.dumps(result).encode(), {"Content-Type": "application/json"}, 200
        raise RefusalError(404, message=f"no such endpoint: {self.command} {path}")

    def _authenticate(self):
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if token and token not in self.hub.users:
            raise RefusalError(401, message="Invalid credentials in Authorization header")
        return self.hub.users.get(token)

    def _signed_in(self):
        if self.user is None:
            raise RefusalError(401, message="Invalid username or password.")
        return self.user

    def _repository(self, name, write=False):
        repository = self.hub.repositories.get(name)
        owner = name.split("/")[0]
        member = self.user is not None and owner in (self.user["name"], *self.user["orgs"])
        if repository is None or (repository.private and not member):
            raise RefusalError(404 if self.user else 401, "RepoNotFound", "Repository not found")
        if write and not (member and self._signed_in()["role"] == "write"):
            self._signed_in()
            raise RefusalError(403, message=f"You don't have the rights to write to {name}")
        return repository

    def _commit(self, repository, revision):
        oid = repository.resolve(revision)
        if oid is None:
            raise RefusalError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return oid

    def whoami(self):
        user = self._signed_in()
        return {"type": "user", "name": user["name"], "orgs": [{"name": name} for name in user["orgs"]]}

    def create(self):
        asked, user = json.loads(self.body), self._signed_in()
        owner = asked.get("organization") or user["name"]
        name = f"{owner}/{asked['name']}"
        if owner not in (user["name"], *user["orgs"]) or user["role"] != "write":
            raise RefusalError(403, message=f"You don't have the rights to create a model under {owner!r}")
        url = f"{self.hub.url}/{name}"
        if name in self.hub.repositories:
            return json.dumps({"error": "You already created this model repo", "url": url}).encode(), {}, 409
        repository = self.hub.repositories[name] = Repository(private=asked.get("visibility") == "private")
        repository.commit({".gitattributes": Blob(b"*.safetensors filter=lfs\n")}, message="initial commit")
        return {"url": url, "name": name, "id": name}

    def validate_yaml(self):
        errors = card_errors(json.loads(self.body)["content"])
        answer = {"errors": [{"message": error} for error in errors], "warnings": []}
        return json.dumps(answer).encode(), {"Content-Type": "application/json"}, 400 if errors else 200

    def info(self, name, revision):
        repository = self._repository(name)
        oid = self._commit(repository, revision or "main")
        blobs = "blobs" in self.query
        files = repository.commits[oid].items()
        siblings = [{"rfilename": path, **(described(blob) if blobs else {})} for path, blob in files]
        return {"id": name, "sha": oid, "private": repository.private, "siblings": siblings}

    def branch(self, name, branch):
        repository = self._repository(name, write=True)
        if branch in repository.heads:
            raise RefusalError(409, message="Reference already exists")
        start = json.loads(self.body or b"{}").get("startingPoint", "main")
        repository.heads[branch] = self._commit(repository, start)
        return {}

    def preupload(self, name, revision):
        repository = self._repository(name, write="create_pr" not in self.query)
        now = repository.commits[self._commit(repository, revision)]
        files = []
        for asked in json.loads(self.body)["files"]:
            mode = "lfs" if is_large(asked["path"], asked["size"]) else "regular"
            oid = now[asked["path"]].oid if asked["path"] in now else None
            files.append({"path": asked["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        return {"files": files}

    def lfs_batch(self, name):
        self._repository(name)
        objects = json.loads(self.body)["objects"]
        for asked in objects:
            if asked["oid"] not in self.hub.large:
                upload, verify = f"{self.hub.large_url}/large/{asked['oid']}", f"{self.hub.url}/{name}/lfs/verify"
                asked["actions"] = {"upload": {"href": upload}, "verify": {"href": verify}}
        return {"transfer": "basic", "objects": objects}

    def lfs_verify(self, name):
        asked = json.loads(self.body)
        if len(self.hub.large.get(asked["oid"], b"")) != asked["size"]:
            raise RefusalError(404, message="the object was not uploaded")
        return {}

    def xet_token(self, name, kind, revision):
        """Where chunks go: a folder of this machine stands in for the storage."""
        self._commit(self._repository(name, write=kind == "write"), revision)
        url, expiry = f"local://{self.hub.xet}", int(time.time()) + 3600
        values = {"casUrl": url, "accessToken": "xet", "exp": expiry}
        headers = {"X-Xet-Cas-Url": url, "X-Xet-Access-Token": "xet", "X-Xet-Token-Expiration": str(expiry)}
        return json.dumps(values).encode(), {"Content-Type": "application/json", **headers}, 200

    def commit(self, name, revision):
        proposal = "create_pr" in self.query
        repository = self._repository(name, write=not proposal)
        self._signed_in()
        head = self._commit(repository, revision)
        lines = [json.loads(line) for line in self.body.splitlines()]
        header = next(line["value"] for line in lines if line["key"] == "header")
        if header.get("parentCommit") not in (None, head) and not proposal:
            raise RefusalError(412, message="A commit has happened since. Please refresh and try again.")
        files = dict(repository.commits[head])
        for line in lines:
            self._apply(files, line["key"], line["value"])
        branch = f"refs/pr/{sum(b.startswith('refs/pr') for b in repository.heads) + 1}" if proposal else revision
        if proposal:
            repository.heads[branch] = head
        oid = repository.commit(files, branch, header["summary"])
        proposed = f"{self.hub.url}/{name}/discussions/{branch.split('/')[-1]}" if proposal else None
        url = f"{self.hub.url}/{name}/commit/{oid}"
        return {"success": True, "commitOid": oid, "commitUrl": url, "pullRequestUrl": proposed}

    def _apply(self, files, key, value):
        if key == "file":
            files[value["path"]] = Blob(base64.b64decode(value["content"]))
        elif key == "lfsFile":
            if value["oid"] in self.hub.xet_hashes:
                self.hub.large[value["oid"]] = self.hub.read_xet(value["oid"], value["size"])
            if value["oid"] not in self.hub.large:
                raise RefusalError(400, message=f"LFS pointer pointed to a file that does not exist: {value['oid']}")
            files[value["path"]] = Blob(self.hub.large[value["oid"]], lfs=True)

    def resolve(self, name, revision, path):
        repository = self._repository(name)
        oid = self._commit(repository, revision)
        if repository.gated and (self.user is None or name not in self.user["granted"]):
            raise RefusalError(403 if self.user else 401, "GatedRepo", "Access to this model is restricted")
        blob = repository.commits[oid].get(path)
        commit = {"X-Repo-Commit": oid}
        if blob is None:
            raise RefusalError(404, "EntryNotFound", "Entry not found", **commit)
        if not blob.lfs:
            length = {"Content-Length": str(blob.size)} if self.command == "HEAD" else {}
            return self._ranged(blob.content, {"ETag": f'"{blob.git_sha1}"', **commit, **length})
        if blob.sha256 in self.hub.xet_hashes:
            refresh = f"{self.hub.url}/api/models/{name}/xet-read-token/{oid}"
            commit |= {"X-Xet-Hash": self.hub.xet_hashes[blob.sha256], "X-Xet-Refresh-Route": refresh}
        location = f"{self.hub.large_url}/large/{blob.sha256}?file={quote(path)}"
        linked = {"X-Linked-Etag": f'"{blob.sha256}"', "X-Linked-Size": str(blob.size), "Location": location}
        return b"", {**commit, **linked}, 302

    def _large(self, oid):
        if self.command == "PUT":
            if hashlib.sha256(self.body).hexdigest() != oid:
                raise RefusalError(400, message="the content is not that of the object")
            self.hub.large[oid] = self.body
            return b"", {}, 200
        if oid not in self.hub.large:
            raise RefusalError(404, message="no such object")
        return self._ranged(self.hub.large[oid], {"ETag": f'"{oid}"'})

    def _ranged(self, content, headers):
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        if not asked:
            return content, headers, 200
        start, size = int(asked[1]), len(content)
        return content[start:], {**headers, "Content-Range": f"bytes {start}-{size - 1}/{size}"}, 206


def described(blob):
    lfs = {"lfs": {"sha256": blob.sha256, "size": blob.size, "pointerSize": 134}} if blob.lfs else {}
    return {"size": blob.size, "blobId": blob.git_sha1, **lfs}


NAME, REVISION = r"([^/ ]+/[^/ ]+)", r"([^/ ]+)"
ROUTES = [
    (r"GET /api/whoami-v2", "whoami"),
    (r"POST /api/repos/create", "create"),
    (r"POST /api/validate-yaml", "validate_yaml"),
    (rf"GET /api/models/{NAME}(?:/revision/{REVISION})?", "info"),
    (rf"POST /api/models/{NAME}/branch/{REVISION}", "branch"),
    (rf"POST /api/models/{NAME}/preupload/{REVISION}", "preupload"),
    (rf"POST /api/models/{NAME}/commit/{REVISION}", "commit"),
    (rf"GET /api/models/{NAME}/xet-(read|write)-token/{REVISION}", "xet_token"),
    (rf"POST /{NAME}\.git/info/lfs/objects/batch", "lfs_batch"),
    (rf"POST /{NAME}/lfs/verify", "lfs_verify"),
    (rf"(?:GET|HEAD) /{NAME}/resolve/{REVISION}/(.+)", "resolve"),
]

LICENSES = {
    "apache-2.0",
    "mit",
    "cc-by-4.0",
    "cc-by-sa-4.0",
    "cc-by-nc-4.0",
    "cc0-1.0",
    "bsd-3-clause",
    "openrail",
    "other",
    "unknown",
}


def card_errors(card):
    """Return what the Hub would refuse in the header of a card, as far as its rules are documented."""
    found = re.match(r"---\r?\n(.*?)\r?\n---(\r?\n|$)", card, re.DOTALL)
    try:
        front = yaml.safe_load(found[1]) if found else {}
    except yaml.YAMLError as error:
        return [f"invalid YAML: {error}"]
    if not isinstance(front, dict):
        return ["the front matter must be a mapping"]
    return [*_values(front), *_model_index(front.get("model-index", []))]


def _values(front):
    if "license" in front and front["license"] not in LICENSES:
        yield f'"license" must be one of {sorted(LICENSES)}'
    for key in ("tags", "datasets", "metrics", "language"):
        value = front.get(key, [])
        if not (isinstance(value, (list, str)) and all(isinstance(item, str) for item in value)):
            yield f'"{key}" must be strings'
    for key in ("library_name", "pipeline_tag"):
        if key in front and not isinstance(front[key], str):
            yield f'"{key}" must be a string'
    base = front.get("base_model", [])
    for name in [base] if isinstance(base, str) else base:
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
            yield f'"base_model" with value "{name}" is not valid'


def _model_index(index):
    for result in (result for model in index for result in model["results"]):
        if not (result["task"]["type"] and result["dataset"]["type"] and result["dataset"]["name"]):
            yield '"model-index" needs a task type, a dataset type and a dataset name'
        if not all("type" in metric and "value" in metric for metric in result["metrics"]):
            yield '"model-index" metrics need a type and a value'
