"""The Bitwarden command-line client: keys as items by `keygate keys create`, `rotate` and `export --bitwarden`, in the pipelines
that the README shows, into a vault on loopback and back to the gate."""

import hashlib
import json
import os
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from harness.bitwarden import EMAIL, PASSWORD, Vault
from harness.gate import Key
from harness.process import eventually

pytestmark = pytest.mark.timeout(180)

ALICE, BOB = Key("alice"), Key("bob")
SERVICE = "FetchML"
# What `bw encode` does, which takes a second to begin; one test uses it.
ENCODE = "base64 -w 0"


class Shell:
    """A shell in the folder of a gate, with `keygate` and a `bw` that is logged in."""

    def __init__(self, folder, session, server, certificate):
        self.server = server
        bin_folders = [Path(os.environ["KEYGATE_BINARY"]).parent, f"{os.environ['KEYGATE_REAL_NODE']}/node_modules/.bin"]
        self._folder = folder
        self._env = {
            "PATH": ":".join(map(str, [*bin_folders, os.environ["PATH"]])),
            "HOME": str(session),
            "LANG": "C.UTF-8",
            "BITWARDENCLI_APPDATA_DIR": str(session),
            "NODE_EXTRA_CA_CERTS": str(certificate / "cert.pem"),
        }
        self.run(f"bw config server https://{server.address}")
        self._env["BW_SESSION"] = self.run(f"bw login {EMAIL} '{PASSWORD}' --raw")

    def run(self, script, stdin=""):
        """What a script prints; it must succeed."""
        script = f"set -euo pipefail; {script}"
        done = subprocess.run(
            ["bash", "-c", script], input=stdin, cwd=self._folder, env=self._env, capture_output=True, text=True, timeout=90
        )
        assert done.returncode == 0, f"{script}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def json(self, script, stdin=""):
        """What a script prints, read."""
        return json.loads(self.run(script, stdin))


@pytest.fixture(scope="module")
def vault():
    """The account."""
    return Vault()


@pytest.fixture(scope="module")
def gate(shared_lab):
    """A gate that lets everyone with a key in."""
    upstream = shared_lab.upstream(lambda out, seen: out.send(200, json.dumps({"user": seen.one("x-auth-user")})))
    config = f'upstreams: {{ app: {{ servers: ["{upstream.address}"] }} }}\nroutes: [{{ path: /, upstream: app }}]'
    return shared_lab.gate(config, [ALICE, BOB])


@pytest.fixture(scope="module")
def shell(shared_lab, gate, vault):
    """Where the operator works."""
    certificate = shared_lab.certificate()
    server = shared_lab.upstream(vault.answer, certificate)
    return Shell(gate.folder, shared_lab.folder("session"), server, certificate)


def user_of(gate, key):
    """Whom the upstream is told when this key is used; `None` where the gate refuses it."""
    asked = urllib.request.Request(f"{gate.url}/", headers={"X-Api-Key": key})
    try:
        with urllib.request.urlopen(asked, timeout=10) as answer:
            return json.load(answer)["user"]
    except urllib.error.HTTPError as refused:
        assert refused.code == 401
        return None


def hash_of(key):
    """What the hidden field holds."""
    return [{"name": "api_key_hash", "value": hashlib.sha256(key.encode()).hexdigest(), "type": 1}]


def shape(value):
    """The members of an object, each with its JSON type."""
    return {name: type(member) for name, member in value.items()}


def test_an_item_has_the_members_of_the_clients_own_template(shell):
    """No more, no fewer, and each of the same type."""
    made = shell.json("keygate keys create --user frida --bitwarden")
    exported = shell.json("keygate keys export --bitwarden -", ALICE.secret)
    template = shell.json("bw get template item")
    login, field = shell.json("bw get template item.login"), shell.json("bw get template item.field")
    for item in (made, exported):
        assert shape(item) == shape(template) | {"login": dict}
        assert shape(item["login"]) == shape(login)
        assert [shape(one) for one in item["fields"]] == [shape(field)]


def test_a_new_key_goes_into_the_vault_and_from_there_to_the_gate(shell, gate):
    """As FetchML's operator makes it, its user copies it, and it is replaced."""
    made = shell.json(f"keygate keys create --user carol --bitwarden --service {SERVICE} | bw encode | bw create item")
    item = shell.json(f"bw get item '{SERVICE} API – carol'")
    assert (item["name"], item["type"], item["id"]) == (f"{SERVICE} API – carol", 1, made["id"])
    key = item["login"]["password"]
    assert item["login"]["username"] == "carol" and item["fields"] == hash_of(key)
    assert shell.run(f"bw get password '{SERVICE} API – carol'") == key
    eventually("the new key is good", lambda: user_of(gate, key) == "carol")

    rotated = f"keygate keys rotate --grace 0 --bitwarden --service {SERVICE} - | {ENCODE} | bw edit item {item['id']}"
    item = shell.json(rotated, key)
    new = item["login"]["password"]
    assert new != key and item["fields"] == hash_of(new) and item["name"] == f"{SERVICE} API – carol"
    eventually("the new key is good alone", lambda: user_of(gate, new) == "carol" and user_of(gate, key) is None)
    assert not [seen.path for seen in shell.server.seen for secret in (key, new) if seen.holds(secret)]


def test_an_item_is_shared_through_a_collection(shell, vault):
    """It belongs to the organization from the start."""
    sharing = f"--organization {vault.organization} --collection {vault.collection}"
    item = shell.json(f"keygate keys create --user dora --bitwarden {sharing} | {ENCODE} | bw create item")
    assert (item["organizationId"], item["collectionIds"]) == (vault.organization, [vault.collection])
    assert item["name"] == "keygate API – dora" and item["fields"] == hash_of(item["login"]["password"])


@pytest.mark.parametrize("known", [True, False])
def test_a_key_that_exists_goes_into_the_vault(shell, gate, known):
    """With its password where the operator has it, without it where not."""
    bob = next(key["id"] for key in shell.json("keygate keys list --json") if key["user"] == "bob")
    option, secret = ("--password-stdin", BOB.secret) if known else ("", "")
    item = shell.json(f"keygate keys export --bitwarden {option} {bob} | {ENCODE} | bw create item", secret)
    assert (item["login"]["username"], item["login"].get("password", "")) == ("bob", secret)
    assert item["fields"] == hash_of(BOB.secret)
    assert not known or user_of(gate, item["login"]["password"]) == "bob"


def test_many_keys_are_imported(shell):
    """All at once, from a pipe: no file need hold them."""
    shell.run("keygate keys export --bitwarden --service many | bw import bitwardenjson /dev/stdin")
    items = shell.json("bw list items --search many")
    keys = shell.json("keygate keys list --json")
    assert sorted(item["name"] for item in items) == sorted(f"many API – {key['user']}" for key in keys)
    for user in (ALICE, BOB):
        [item] = [item for item in items if item["name"] == f"many API – {user.user}"]
        assert (item["login"]["username"], item["fields"]) == (user.user, hash_of(user.secret))
