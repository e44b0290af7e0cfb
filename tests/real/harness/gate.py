"""The gate: the real binary with a configuration and a key file of the test's."""

import hashlib
import json
import os
import secrets
import string
import subprocess
import urllib.error
import urllib.request
import zlib
from dataclasses import dataclass, field

from .process import Process, eventually

BASE62 = string.digits + string.ascii_uppercase + string.ascii_lowercase

# The credential sources of the documented example.
CREDENTIALS = """
credentials:
  - header: X-Api-Key
  - header: api-key
  - header: Authorization
    schemes: [Bearer, Apikey, Api-Key, Token]
  - { query: api_key, browser_login: true }
  - query: token
  - websocket_protocol: "keygate.key."
  - websocket_protocol: "openai-insecure-api-key."
  - basic: password
  - cookie: keygate_session
"""


def own_key():
    """A key in the gate's own form: `kg_`, 48 random characters, and the CRC-32 of all that in six."""
    head = "kg_" + "".join(secrets.choice(BASE62) for _ in range(48))
    rest, tail = zlib.crc32(head.encode()), ""
    for _ in range(6):
        rest, digit = divmod(rest, 62)
        tail = BASE62[digit] + tail
    return head + tail


def plain_and_tls(certificate):
    """The `listen` section of a plain listener and a TLS one, with `cert.pem` and `key.pem` of a folder."""
    pair = f"{{ cert: {certificate / 'cert.pem'}, key: {certificate / 'key.pem'} }}"
    return f'[{{ address: "127.0.0.1:0" }}, {{ address: "127.0.0.1:0", tls: {{ certificates: [{pair}] }} }}]'


@dataclass
class Key:
    """A key and what its entry says."""

    user: str
    roles: list = field(default_factory=list)
    limits: dict = None
    secret: str = field(default_factory=own_key)

    @property
    def hash(self):
        """The stored digest, in hex."""
        return hashlib.sha256(self.secret.encode()).hexdigest()

    def entry(self):
        """The entry in the key file, in a spelling that YAML shares with JSON."""
        entry = {"id": secrets.token_hex(4), "user": self.user, "hash": f"sha256:{self.hash}", "roles": self.roles}
        if self.limits:
            entry["limits"] = self.limits
        return json.dumps(entry)


class Gate(Process):
    """A running gate. When it stops, its output is searched for the keys."""

    def __init__(self, folder, config, keys, env=None, listen='[{ address: "127.0.0.1:0" }]'):
        self.keys = keys
        self.secrets = list((env or {}).values())
        folder.mkdir(parents=True, exist_ok=True)
        text = f'listen: {listen}\nadmin: {{ address: "127.0.0.1:0" }}\nkeys: {{ file: keys.yaml }}\n'
        if "credentials:" not in config.split("routes:")[0]:
            text += CREDENTIALS
        text += config + "\nlog: { level: debug, format: json, access: stdout }\n"
        (folder / "keygate.yaml").write_text(text)
        key_file = folder / "keys.yaml"
        key_file.touch(mode=0o600)
        key_file.write_text("version: 1\nkeys:\n" + "".join(f"  - {key.entry()}\n" for key in keys) + "...\n")
        super().__init__([os.environ["KEYGATE_BINARY"], "serve", "--config", folder / "keygate.yaml"], folder, env)
        try:
            self.wait_for('"message":"ready"')
        except AssertionError:
            self.stop()
            raise
        events = [json.loads(line) for line in self.err if line.startswith("{")]
        self.addresses = [event["address"] for event in events if event.get("message") == "listening"]
        self.admin = next(event["address"] for event in events if event.get("message") == "admin listening")

    @property
    def address(self):
        """Host and port of the first listener."""
        return self.addresses[0]

    @property
    def url(self):
        """`http://` and the first listener."""
        return f"http://{self.address}"

    @property
    def ws(self):
        """`ws://` and the first listener."""
        return f"ws://{self.address}"

    def access(self, **want):
        """The access log's lines so far that have these values."""
        lines = [json.loads(line) for line in list(self.out)]
        return [line for line in lines if all(line.get(name) == value for name, value in want.items())]

    def await_access(self, **want):
        """The first access line with these values, waited for: it is written after the answer."""
        return eventually(f"an access line with {want}", lambda: self.access(**want))[0]

    def disable_keys(self):
        """Disables every key, in a file that takes the old one's place."""
        keys = self.folder / "keys.yaml"
        next_file = self.folder / "keys.yaml.next"
        next_file.touch(mode=0o600)
        next_file.write_text("".join(line.replace("}\n", ', "disabled": true}\n') for line in keys.open()))
        next_file.rename(keys)

    def keys_command(self, *arguments):
        """Runs `keygate keys`, which must succeed; what it printed."""
        command = [os.environ["KEYGATE_BINARY"], "keys", *arguments]
        return subprocess.run(command, cwd=self.folder, check=True, capture_output=True, text=True, timeout=20)

    def await_key(self, secret):
        """Waits until a new key is in force."""

        def answered():
            request = urllib.request.Request(f"{self.url}/", headers={"X-API-Key": secret})
            try:
                return urllib.request.urlopen(request, timeout=5)
            except urllib.error.HTTPError as error:
                return error.code != 401

        eventually("the new key is in force", answered)

    def stop(self):
        """Ends the gate, and fails if a key, a digest or an upstream's secret shows in its output."""
        super().stop()
        text = self.text()
        for secret in [key.secret for key in self.keys] + [key.hash for key in self.keys] + self.secrets:
            assert secret not in text, f"a secret of the {len(self.keys)} shows in the gate's output"
